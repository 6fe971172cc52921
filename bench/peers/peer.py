"""What the driver knows of a peer in Python or C: its cases, each a way to call it, and its results for checking."""
import time


class Skip(Exception):
    """Why a peer cannot be run, in a sentence."""


def first_line(error):
    """An exception in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


class Case:
    """One way of calling a peer on the batches of one shape. Subclasses say what a call is.

    mode is forward, in-place or out-of-place. scale is what the gradient was multiplied with: 1 / rows for the mean.
    """
    kind = "peer"

    def __init__(self, batch, name, mode, note="", scale=None):
        self.batch, self.name, self.mode, self.note = batch, name, mode, note
        self.scale = 1 / batch.rows if scale is None else scale

    def select(self):
        """What has to happen before calls, untimed."""

    def call(self, slot):
        raise NotImplementedError

    def input_of(self, slot):
        """The array that a call in place overwrites."""
        return self.batch.work[slot]

    def result(self, slot):
        """(loss, gradient or None) as the last call on this slot left them, in numpy."""
        raise NotImplementedError

    def time(self, slots, untimed=()):
        """(seconds on the clock, seconds of all threads on a CPU) for one call on each slot. Those that are untimed
        come just before, and wake threads up."""
        call = self.call
        for slot in untimed:
            call(slot)
        on_cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        for slot in slots:
            call(slot)
        wall, on_cpu = time.perf_counter_ns() - wall, time.process_time_ns() - on_cpu
        return 1e-9 * wall, 1e-9 * on_cpu

    def close(self):
        """Lets go of what the case holds."""


class FunctionCase(Case):
    """A case that is a function of the slot, and another one for its result."""

    def __init__(self, batch, name, mode, call, result, note="", scale=None, input_of=None):
        super().__init__(batch, name, mode, note, scale)
        self.call, self.result = call, result
        self.input_of = input_of or super().input_of

    def close(self):
        self.call = self.result = self.input_of = None


class Peer:
    """A library. names are those of its cases, some libraries having more than one good way to be called."""
    group = ""

    def version(self):
        raise NotImplementedError

    def cases(self, batch):
        """Yields functions that make a case each, so that one which fails is skipped alone."""
        raise NotImplementedError

    def names(self):
        """The names of its cases that evaluate() knows."""
        raise NotImplementedError

    def evaluate(self, name, logits, targets):
        """(losses of the rows, gradient of each row's own loss), computed as the case of that name does."""
        raise NotImplementedError
