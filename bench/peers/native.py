"""The harness and the peers in C, through ctypes."""
import ctypes
import subprocess

import numpy

from data import SLACK, allocate
from peer import Case, Peer, Skip

MODES = ("forward", "in-place", "out-of-place")


class Executor(ctypes.Structure):
    """struct peer_executor, of which only pointers are needed here."""


class Setup(ctypes.Structure):
    _fields_ = [("rows", ctypes.c_size_t), ("classes", ctypes.c_size_t), ("executor", ctypes.POINTER(Executor))]


class Call(ctypes.Structure):
    _fields_ = [("logits", ctypes.c_void_p), ("targets", ctypes.c_void_p), ("grad", ctypes.c_void_p),
                ("losses", ctypes.c_void_p), ("mean", ctypes.c_void_p), ("each", ctypes.c_bool)]


class Times(ctypes.Structure):
    _fields_ = [("wall", ctypes.c_double), ("on_cpu", ctypes.c_double)]


def load(path):
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise Skip(str(error)) from None


class Harness:
    """The pool of threads, and what it times."""

    def __init__(self, path, threads):
        self.threads = threads
        self.library = load(path)
        self.library.harness_start.restype = ctypes.POINTER(Executor)
        self.library.harness_start.argtypes = [ctypes.c_size_t]
        self.library.harness_floor.restype = ctypes.c_char_p
        self.library.harness_floor.argtypes = [ctypes.c_size_t]
        self.library.harness_time.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_size_t] * 2 + [ctypes.POINTER(Times)]
        self.library.harness_time_floor.argtypes = [ctypes.c_size_t, *[ctypes.c_void_p] * 2, *[ctypes.c_size_t] * 3,
                                                    ctypes.POINTER(Times)]
        for restore in (self.library.harness_restore, self.library.harness_restore_cached):
            restore.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
            restore.restype = None
        self.executor = self.library.harness_start(threads)
        if not self.executor:
            raise Skip(f"{threads} threads cannot be started")

    def floors(self):
        """The names "operation/variant" of every floor."""
        names = []
        while name := self.library.harness_floor(len(names)):
            names.append(name.decode())
        return names

    def restore(self, to, array, cached):
        """Copies an array; to is another one or an address."""
        address = to.ctypes.data if isinstance(to, numpy.ndarray) else to
        function = self.library.harness_restore_cached if cached else self.library.harness_restore
        function(address, array.ctypes.data, array.size)


class FloorCase(Case):
    kind = "floor"
    MODES = {"read": "forward", "scale": "in-place", "stream": "out-of-place", "copy": "out-of-place"}

    def __init__(self, harness, index, name, batch):
        operation, variant = name.split("/")
        super().__init__(batch, f"floor {operation}", self.MODES[operation], note=variant)
        self.harness, self.index = harness, index

    def time(self, slots, untimed=()):
        every = [*untimed, *slots]
        pointers = ctypes.c_void_p * len(every)
        sources = self.batch.work if self.mode == "in-place" else self.batch.inputs
        times = Times()
        self.harness.library.harness_time_floor(
            self.index, pointers(*(sources[k].ctypes.data for k in every)),
            pointers(*(self.batch.work[k].ctypes.data for k in every)), self.batch.count, len(untimed), len(slots),
            times)
        return times.wall, times.on_cpu

    def call(self, slot):
        self.time([slot])


class NativeCase(Case):
    """A peer in C. The clock is read in C as well."""

    def __init__(self, peer, batch, name, mode):
        super().__init__(batch, name, mode, peer.note, None if peer.divides else 1.0)
        self.peer = peer
        self.losses = numpy.zeros(batch.rows, numpy.float32)
        self.mean = numpy.zeros(1, numpy.float32)
        self.calls = [self.make_call(k) for k in range(batch.slots)]

    def make_call(self, slot):
        batch = self.batch
        logits = batch.work[slot] if self.mode == "in-place" else batch.inputs[slot]
        grad = None if self.mode == "forward" else batch.work[slot].ctypes.data
        return Call(logits.ctypes.data, batch.targets.ctypes.data, grad, self.losses.ctypes.data, self.mean.ctypes.data,
                    False)

    def select(self):
        self.peer.open(self.batch.rows, self.batch.classes)
        self.peer.select(self.name)

    def time(self, slots, untimed=()):
        every = [*untimed, *slots]
        calls = (ctypes.c_void_p * len(every))(*(ctypes.addressof(self.calls[k]) for k in every))
        times = Times()
        self.peer.harness.library.harness_time(self.peer.run, calls, len(untimed), len(slots), times)
        return times.wall, times.on_cpu

    def call(self, slot):
        self.time([slot])

    def result(self, slot):
        return float(self.mean[0]), None if self.mode == "forward" else self.batch.work[slot]

    def close(self):
        self.calls = []


class NativePeer(Peer):
    """A shared object with the interface of peer.h."""
    divides = True  # the gradient is the mean's

    def __init__(self, harness, path, group, note):
        self.harness, self.group, self.note = harness, group, note
        self.library = load(path)
        self.library.peer_version.restype = ctypes.c_char_p
        self.library.peer_open.restype = ctypes.c_char_p
        self.library.peer_open.argtypes = [ctypes.POINTER(Setup)]
        self.library.peer_run.argtypes = [ctypes.POINTER(Call)]
        self.run = ctypes.cast(self.library.peer_run, ctypes.c_void_p)
        self.opened = None

    def version(self):
        return self.library.peer_version().decode()

    def select(self, name):
        """Makes the library compute in the way of that name, if it has several."""

    def open(self, rows, classes):
        if self.opened == (rows, classes):
            return
        if self.opened:
            self.library.peer_close()
        self.opened = None
        reason = self.library.peer_open(Setup(rows, classes, self.harness.executor))
        if reason:
            raise Skip(reason.decode())
        self.opened = rows, classes

    def names(self):
        return [self.group]

    def cases(self, batch):
        for name in self.names():
            for mode in MODES:
                yield lambda name=name, mode=mode: NativeCase(self, batch, name, mode)

    def evaluate(self, name, logits, targets):
        rows, classes = logits.shape
        self.open(rows, classes)
        self.select(name)
        x, grad = (allocate(logits.size + SLACK) for _ in range(2))
        x[:logits.size] = logits.ravel()
        losses, mean = numpy.zeros(rows, numpy.float32), numpy.zeros(1, numpy.float32)
        self.library.peer_run(Call(x.ctypes.data, targets.ctypes.data, grad.ctypes.data, losses.ctypes.data,
                                   mean.ctypes.data, True))
        return losses, grad[:logits.size].reshape(rows, classes)


class XentPeer(NativePeer):
    """This library: one name for each kernel, the scalar one only if asked for or alone."""

    def __init__(self, harness, path, libxent, kernels):
        super().__init__(harness, path, "xent", "")
        self.libxent = load(libxent)
        self.libxent.xent_select.argtypes = [ctypes.c_char_p]
        self.libxent.xent_isas.restype = ctypes.POINTER(ctypes.c_char_p)
        available, names = self.libxent.xent_isas(), []
        while available[len(names)]:
            names.append(available[len(names)].decode())
        unknown = [kernel for kernel in kernels or [] if kernel not in names]
        if unknown:
            raise Skip(f"no kernel {unknown[0]}: this CPU can run {', '.join(names)}")
        self.kernels = kernels or [kernel for kernel in names if kernel != "scalar"] or names

    def names(self):
        return [f"xent {kernel}" for kernel in self.kernels]

    def select(self, name):
        if self.libxent.xent_select(name.split()[1].encode()) != 0:
            raise Skip(f"{name} cannot be selected")

    def cases(self, batch):
        for make in super().cases(batch):
            yield lambda make=make: self.as_kernel(make())

    @staticmethod
    def as_kernel(case):
        case.kind = "kernel"
        return case


class XnnpackPeer(NativePeer):
    divides = False

    def version(self):
        # The library does not say.
        try:
            package = subprocess.run(["dpkg-query", "-f", "${Version}", "-W", "libxnnpack0"], capture_output=True,
                                     text=True).stdout
        except OSError:
            package = ""
        return f"XNNPACK {package}".strip()
