"""Arrays of a problem in random layouts, with a canary wherever nothing of theirs is."""
import numpy as np

from library import Strides


class Array:
    """Values [outer][extent][inner] placed somewhere in a buffer."""

    def __init__(self, values, dtype, buffer, offset, strides, packed):
        self.dtype, self.shape, self.packed = np.dtype(dtype), values.shape, packed
        self.buffer, self.offset, self.element_strides = buffer, offset, strides
        self.strides = Strides(*strides)
        self.values = self._view(buffer)
        if values.size:
            self.values[...] = values

    def _view(self, buffer):
        size = self.dtype.itemsize
        typed = buffer[self.offset * size:].view(self.dtype)
        return np.lib.stride_tricks.as_strided(typed, self.shape, [s * size for s in self.element_strides])

    @property
    def address(self):
        return self.buffer.ctypes.data + self.offset * self.dtype.itemsize

    def copy(self):
        """The same in memory of its own."""
        other = object.__new__(Array)
        other.__dict__.update(self.__dict__)
        other.buffer = self.buffer.copy()
        other.values = other._view(other.buffer)
        return other

    def is_untouched_around(self, before):
        """Whether only values have changed since this was a copy of before."""
        same = before.copy()
        if same.values.size:
            same.values[...] = self.values
        return bytes(same.buffer) == bytes(self.buffer)


def strides_of(shape, order, pads):
    """Element strides of an array whose dimensions come in this order, the last one innermost."""
    strides, reach = [0, 0, 0], 1
    for axis, pad in zip(reversed(order), pads):
        strides[axis] = reach + pad if reach > 1 or pad == 0 else 1 + pad
        reach = strides[axis] * max(shape[axis], 1)
    return strides


def place(rng, values, dtype, layout="packed", broadcast=()):
    """An Array. Layouts: packed, padded (rows apart), classes-last, permuted (any order, any gaps). Dimensions in
    broadcast have a stride of 0; the values must be the same along them."""
    shape, dtype = values.shape, np.dtype(dtype)
    order, pads = (0, 1, 2), (0, 0, 0)
    if layout == "padded":
        pads = (0, rng.choice((0, 3)), rng.randint(1, 17))
    elif layout == "classes-last":
        order, pads = (0, 2, 1), (0, rng.choice((0, 0, 5)), 0)
    elif layout == "permuted":
        order = rng.sample((0, 1, 2), 3)
        pads = (rng.choice((0, 0, 1, 2)), rng.choice((0, 3)), rng.choice((0, 7)))
    strides = strides_of([1 if axis in broadcast else n for axis, n in enumerate(shape)], order, pads)
    strides = [0 if axis in broadcast else stride for axis, stride in enumerate(strides)]
    room = sum(stride * max(n - 1, 0) for stride, n in zip(strides, shape)) + 1
    offset, after = rng.randint(0, 17), rng.randint(0, 17)
    raw = np.full((offset + room + after) * dtype.itemsize + 64, 0xA5, np.uint8)
    # Aligned to the element; where in a cache line is up to the offset.
    start = -raw.ctypes.data % 64
    buffer = raw[start:start + (offset + room + after) * dtype.itemsize]
    return Array(values, dtype, buffer, offset, strides, layout == "packed" and not broadcast)
