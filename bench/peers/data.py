"""The data of a run: batches in buffers that are allocated once, exact results, and errors in ULP."""
import mmap
import pathlib

import numpy

SEED = 20260401
CHECKED_LOGITS = 2 << 20
SLACK = 64  # floats after each array
MOST_SLOTS = 1024


def last_level_cache():
    """Its size in bytes; a guess if the system does not say."""
    sizes = []
    for path in pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(int(text[:-1]) << 10)
    return max(sizes, default=32 << 20)


def allocate(count, kind=numpy.float32):
    """An array in pages of its own. It is never freed: libraries may keep pointers to it."""
    size = max(count, 1) * numpy.dtype(kind).itemsize
    array = numpy.frombuffer(mmap.mmap(-1, size), dtype=kind, count=count)
    array.fill(0)
    return array


def normal(generator, shape):
    """Normal deviates in float."""
    return generator.standard_normal(shape, dtype=numpy.float32)


class Pool:
    """Room for several batches one after the other: each call takes the next one, so that it finds none in cache."""

    def __init__(self, shapes, rotated_bytes):
        self.rotated_bytes = rotated_bytes
        count = max(self.step(*shape) * self.slots(*shape) for shape in shapes)
        self.inputs = allocate(count)
        self.work = allocate(count)
        self.targets = allocate(max(rows for rows, _ in shapes), numpy.int32)
        self.targets64 = allocate(max(rows for rows, _ in shapes), numpy.int64)
        generator = numpy.random.default_rng(SEED)
        for start in range(0, count, 1 << 20):
            part = self.inputs[start:start + (1 << 20)]
            part[:] = normal(generator, part.size) * numpy.float32(3)

    @staticmethod
    def step(rows, classes):
        """Floats from one batch to the next: whole cache lines."""
        return (rows * classes + 2 * SLACK - 1) // SLACK * SLACK

    def slots(self, rows, classes):
        return min(MOST_SLOTS, max(1, -(-self.rotated_bytes // (4 * self.step(rows, classes)))))


class Batch:
    """The batches of one shape in the pool. inputs are never written; work is what calls write to."""

    def __init__(self, pool, rows, classes):
        self.rows, self.classes = rows, classes
        self.count = rows * classes
        self.name = f"{rows}x{classes}"
        step, self.slots = pool.step(rows, classes), pool.slots(rows, classes)
        self.inputs = [pool.inputs[k * step:k * step + self.count].reshape(rows, classes) for k in range(self.slots)]
        self.work = [pool.work[k * step:k * step + self.count].reshape(rows, classes) for k in range(self.slots)]
        generator = numpy.random.default_rng([SEED, rows, classes])
        self.targets, self.targets64 = pool.targets[:rows], pool.targets64[:rows]
        self.targets[:] = generator.integers(0, classes, rows)
        self.targets64[:] = self.targets


class Exact:
    """Losses and gradients of some rows in double, each from no difference of rounded numbers:

        s'    = sum over j != y of exp(x_j - m)             m the largest logit
        loss  = log1p(s' / exp(x_y - m))
        grad  = exp(x_j - m) / s,  for the target -s' / s   s = s' + exp(x_y - m)
    """

    def __init__(self, logits, targets, keep_gradient=True):
        rows = len(logits)
        self.losses = numpy.empty(rows)
        self.grad = numpy.empty(logits.shape) if keep_gradient else None
        piece = max(1, (1 << 22) // max(1, logits.shape[1]))
        for first in range(0, rows, piece):
            part = slice(first, min(first + piece, rows))
            self.compute(logits[part], targets[part], part)

    def compute(self, logits, targets, part):
        x = logits.astype(numpy.float64)
        every = numpy.arange(len(x))
        e = numpy.exp(x - x.max(axis=1, keepdims=True))
        target = e[every, targets]
        e[every, targets] = 0
        others = e.sum(axis=1, dtype=numpy.longdouble)
        with numpy.errstate(divide="ignore", over="ignore"):
            ratio = (others / target).astype(numpy.float64)
            difference = (x.max(axis=1) - x[every, targets]) + numpy.log(others.astype(numpy.float64))
        # exp(x_y - m) may be too small for a double: then the loss is the logarithm of the ratio to many digits.
        self.losses[part] = numpy.where(numpy.isfinite(ratio), numpy.log1p(ratio), difference)
        if self.grad is not None:
            total = others + target
            e[every, targets] = -others
            self.grad[part] = e / total.astype(numpy.float64)[:, None]


def ulps(got, exact):
    """|got - exact| in units of the last place of exact as a float. NaN counts as infinite."""
    _, exponent = numpy.frexp(exact)
    exponent = numpy.where(exact == 0, -126, numpy.maximum(exponent - 1, -126))
    with numpy.errstate(invalid="ignore", over="ignore"):
        error = numpy.abs(got.astype(numpy.float64) - exact) / numpy.ldexp(1.0, exponent - 23)
    return numpy.where(numpy.isnan(error), numpy.inf, error)


def errors(result, exact, targets):
    """The largest error of the losses and of the gradient's entries, those of the targets apart from the others."""
    losses, grad = result
    every = numpy.arange(len(targets))
    apart = ulps(grad, exact.grad)
    target = apart[every, targets].max()
    apart[every, targets] = 0
    return {"loss_ulp": float(ulps(losses, exact.losses).max()), "grad_ulp": float(max(apart.max(), target)),
            "grad_ulp_others": float(apart.max()), "grad_ulp_target": float(target)}


def special_tests():
    """(name, logits, targets): rows on which implementations differ."""
    generator = numpy.random.default_rng(SEED + 1)

    def random(name, rows, classes, deviation, offset=0.0, argmax=False):
        logits = normal(generator, (rows, classes)) * numpy.float32(deviation) + numpy.float32(offset)
        targets = logits.argmax(axis=1) if argmax else generator.integers(0, classes, rows)
        return name, logits, targets.astype(numpy.int32)

    yield random("normal*3, V=10", 4096, 10, 3)
    yield random("normal*3, V=1000", 256, 1000, 3)
    yield random("normal*3, V=50257", 16, 50257, 3)
    yield random("normal*30, V=1000", 256, 1000, 30)
    yield random("normal*30, V=1000, target = argmax", 256, 1000, 30, argmax=True)
    yield random("normal*3 + 1e4, V=1000", 256, 1000, 3, offset=1e4)
    yield "row [4, 3, 2, 20], target 3", numpy.float32([[4, 3, 2, 20]]), numpy.int32([3])
