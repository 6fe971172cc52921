"""Time every peer, this library's kernels and the floors on one number of threads, in one process on the same buffers.

tools/peers builds what this loads and starts it, once for each number of threads. The result is JSON.
"""
import argparse
import collections
import functools
import gc
import glob
import json
import os
import pathlib
import random
import statistics
import sys
import time

import numpy

import data
import native
from peer import Skip, first_line

SETTLE_SECONDS = 0.01   # for the threads of the case before to stop spinning, if there are any
CALL_SECONDS = 0.02     # a repetition makes as many calls as take so long together
MOST_CALLS = 64
CHECKED_ROWS = 32
ATTEMPTS = 5            # at a repetition during which a thread had to wait for a CPU
MOST_WAITING = 0.02     # of the time of a repetition that counts as undisturbed


def say(text):
    print(text, file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True, help="where the shared objects are")
    parser.add_argument("--libxent", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the JSON file to write")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cpus", required=True, help="to run on, separated by commas")
    parser.add_argument("--shapes", required=True)
    parser.add_argument("--peers", required=True, help="groups, separated by commas; may be empty")
    parser.add_argument("--isas", default="", help="kernels, separated by commas; empty: all")
    parser.add_argument("--repetitions", type=int, required=True)
    parser.add_argument("--rotate", type=int,
                        help="MB of logits that calls take in turn (default: 4 times the last-level cache)")
    parser.add_argument("--errors", action="store_true", help="measure errors as well")
    args = parser.parse_args()
    args.shapes = [tuple(map(int, shape.split("x"))) for shape in args.shapes.split(",")]
    args.cpus = set(map(int, args.cpus.split(",")))
    args.rotate = 4 * data.last_level_cache() if args.rotate is None else args.rotate << 20
    args.peers = list(filter(None, args.peers.split(",")))
    args.isas = list(filter(None, args.isas.split(",")))
    return args


# What each peer in C does with a row. All read rows that fit in cache from memory once, and write them there once.
NATIVE_NOTES = {
    "onednn": "log-softmax and its backward primitive, on rows as many as fit in the second-level cache, where the "
              "log-probabilities and the dense gradient of the output stay (faster than whole batches, and not how "
              "people call it); loss by hand. With the gradient, 2 arrays are written and read again in cache",
    "xnnpack": "softmax operator on rows as many as fit in the second-level cache (3 reads and 2 writes there), loss "
               "by hand as -log of the target's probability, which is infinite where that is 0; for the loss alone, "
               "the probabilities go to a scratch. Favoured: its gradient is not divided by the number of rows",
    "sleef": "loops over the row (maximum; exponentials, kept in the gradient, and their sum; scaling) with SLEEF's "
             "expf of 1.0 ULP, 2 vectors at a time: 2 reads, with the gradient 3 and 2 writes",
    "two-pass": "the algorithm of XNNPACK's two-pass softmax kernels (Dukhan and Ablavatski, 2020), which no operator "
                "here uses, written out by hand: exponentials with exponents of their own, so that no maximum is "
                "needed, computed again for the gradient: 1 read, with the gradient 2 and 1 write",
    "libmvec": "plain loops over the row (maximum; exponentials, kept in the gradient, and their sum; scaling), which "
               "the compiler vectorises with libmvec: 2 reads, with the gradient 3 and 2 writes",
    "plain-c": "the same loops without -ffast-math: the sum in order, expf one by one",
}


def native_peer(name):
    def make(harness, build):
        kind = native.XnnpackPeer if name == "xnnpack" else native.NativePeer
        return kind(harness, build / f"{name}.so", name, NATIVE_NOTES[name])
    return make


def pytorch(harness, build):
    import pytorch_peers
    return pytorch_peers.EagerPeer(harness.threads)


def pytorch_compile(harness, build):
    import pytorch_peers
    return pytorch_peers.CompiledPeer(harness.threads)


def jax(harness, build):
    import jax_peer
    return jax_peer.JaxPeer()


def onnxruntime(harness, build):
    import onnxruntime_peer
    return onnxruntime_peer.OnnxRuntimePeer(harness.threads)


MAKERS = {"pytorch": pytorch, "pytorch-compile": pytorch_compile, "jax": jax, "onnxruntime": onnxruntime,
          **{name: native_peer(name) for name in NATIVE_NOTES}}


# A repetition: seconds per call on the clock, and of all threads on a CPU; the part of the time that threads waited.
Measured = collections.namedtuple("Measured", "wall on_cpu waiting")


def stolen(cpus):
    """Seconds that these CPUs of a virtual machine were ready to run and did not, as far as the system knows."""
    try:
        with open("/proc/stat") as file:
            times = dict((line.split()[0], line.split()[1:]) for line in file if line.startswith("cpu"))
        return sum(int(times[f"cpu{cpu}"][7]) for cpu in cpus) / os.sysconf("SC_CLK_TCK")
    except (OSError, KeyError, IndexError):
        return 0


def waited():
    """Seconds that each thread of this process was ready to run and did not, where the system counts them."""
    seconds = {}
    for path in glob.iglob("/proc/self/task/*/schedstat"):
        try:
            with open(path, "rb") as file:
                seconds[path] = 1e-9 * int(file.read().split()[1])
        except (OSError, IndexError):
            pass
    return seconds


class Run:
    def __init__(self, args):
        self.args = args
        self.skipped = {}  # by group, or by name and mode
        self.results, self.errors, self.notes, self.versions = [], [], {}, {}
        self.random = random.Random(data.SEED)
        self.harness = native.Harness(args.build / "harness.so", args.threads)
        self.peers = [native.XentPeer(self.harness, args.build / "xent.so", args.libxent, args.isas)]
        self.peers += filter(None, map(self.make_peer, args.peers))
        for peer in self.peers:
            self.versions[peer.group] = peer.version()

    def skip(self, what, error):
        reason = str(error) if isinstance(error, Skip) else first_line(error)
        self.skipped[what] = reason
        say(f"  skipped {what}: {reason}")

    def make_peer(self, group):
        try:
            return MAKERS[group](self.harness, self.args.build)
        except Exception as error:  # whatever a library throws, the others can do without it
            self.skip(group, error)
            return None

    def make_cases(self, batch):
        cases = []
        for peer in self.peers:
            for make in peer.cases(batch):
                try:
                    case = make()
                    self.prepare(case)
                    cases.append(case)
                except Exception as error:
                    self.skip(f"{peer.group} at {batch.name}", error)
        floors = [native.FloorCase(self.harness, i, name, batch) for i, name in enumerate(self.harness.floors())]
        for floor in floors:
            self.prepare(floor)
        return cases + floors

    def prepare(self, case):
        """First calls, of which the first may compile; a check that a call does the work; and its duration."""
        self.restore(case, [0])
        self.select(case)
        case.call(0)
        if case.kind != "floor":
            check_result(case)
        slot = 1 % case.batch.slots
        self.restore(case, [slot])
        case.seconds = case.time([slot])[0]
        if case.kind == "peer":
            self.notes[case.name] = case.note

    def select(self, case):
        self.harness.library.harness_default_floating_point()
        case.select()

    def restore(self, case, slots):
        if case.mode != "in-place":
            return
        for slot in slots:
            self.harness.restore(case.input_of(slot), case.batch.inputs[slot], cached=case.batch.slots == 1 and
                                 self.args.rotate == 0)

    def next_slots(self, batch, count):
        slots = [(self.cursor + i) % batch.slots for i in range(count)]
        self.cursor = (self.cursor + count) % batch.slots
        return slots

    def repeat(self, case):
        """The least disturbed of a few attempts at one repetition."""
        attempts = []
        for _ in range(ATTEMPTS):
            attempts.append(self.attempt(case))
            if attempts[-1].waiting < MOST_WAITING:
                break
        return min(attempts, key=lambda attempt: attempt.waiting)

    def attempt(self, case):
        calls = min(MOST_CALLS, max(1, int(CALL_SECONDS / case.seconds)))
        if self.args.threads > 1:
            time.sleep(SETTLE_SECONDS)
        self.select(case)
        untimed = 1 if case.seconds < CALL_SECONDS / 2 else 0
        wall = on_cpu = lost = 0.0
        left = calls
        while left > 0:
            slots = self.next_slots(case.batch, max(1, min(left, case.batch.slots - untimed)))
            warm = self.next_slots(case.batch, untimed) if case.batch.slots > 1 else []
            self.restore(case, slots + warm)
            before = self.lost()
            times = case.time(slots, warm)
            lost += sum(seconds - before.get(key, 0) for key, seconds in self.lost().items())
            wall, on_cpu, left = wall + times[0], on_cpu + times[1], left - len(slots)
        return Measured(wall / calls, on_cpu / calls, lost / wall)

    def lost(self):
        """Seconds lost to others until now. On one thread those to other processes do not matter: the time on the CPU
        is known."""
        return {"stolen": stolen(self.args.cpus), **(waited() if self.args.threads > 1 else {})}

    def time_shape(self, batch, label):
        say(f"{label}: preparing")
        self.cursor = 0
        cases = self.make_cases(batch)
        times = {case: [] for case in cases}
        start = time.monotonic()
        for repetition in range(self.args.repetitions):
            self.random.shuffle(cases)
            for case in cases:
                gc.collect(0)
                gc.disable()
                times[case].append(self.repeat(case))
                gc.enable()
            say(f"{label}: repetition {repetition + 1} of {self.args.repetitions}, {len(cases)} cases, "
                f"{time.monotonic() - start:.0f} s")
        results = [self.result(case, measured) for case, measured in times.items()]
        self.results += fastest_floors(results)
        for case in cases:
            case.close()

    def result(self, case, measured):
        # On one thread nothing waits, so that the time on the CPU is the time without that of other processes.
        seconds = [min(one.wall, one.on_cpu) if self.args.threads == 1 else one.wall for one in measured]
        median = statistics.median(seconds)
        low, _, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [median] * 3
        batch = case.batch
        return {"shape": batch.name, "rows": batch.rows, "classes": batch.classes, "threads": self.args.threads,
                "mode": case.mode, "name": case.name, "kind": case.kind, "ns_per_logit": 1e9 * median / batch.count,
                "spread": (high - low) / 2 / median,
                "cpus": statistics.median(one.on_cpu / one.wall for one in measured),
                "waiting": statistics.median(one.waiting for one in measured), "note": case.note}

    def evaluate(self, test, logits, targets):
        """The errors of every way of calling every peer on some rows, by name."""
        exact = data.Exact(logits, targets)
        by_name = {}
        for peer in self.peers:
            for name in peer.names():
                self.harness.library.harness_default_floating_point()
                try:
                    result = peer.evaluate(name, logits, targets)
                except Exception as error:
                    self.skip(f"{name}, errors of {test}", error)
                    continue
                by_name[name] = data.errors(result, exact, targets)
                by_name[name]["losses"] = [float(loss) for loss in result[0][:1]]
        return by_name, exact

    def shape_errors(self, batch):
        rows = min(batch.rows, max(1, data.CHECKED_LOGITS // batch.classes))
        errors, _ = self.evaluate(batch.name, batch.inputs[0][:rows], batch.targets[:rows])
        for result in self.results:
            if result["shape"] == batch.name and result["name"] in errors:
                error = errors[result["name"]]
                result["loss_ulp"] = error["loss_ulp"]
                if result["mode"] != "forward":
                    result.update({key: error[key] for key in error if key.startswith("grad")})

    def special_errors(self):
        for test, logits, targets in data.special_tests():
            say(f"errors: {test}")
            errors, exact = self.evaluate(test, logits, targets)
            for name, error in errors.items():
                entry = {"test": test, "name": name, **{key: error[key] for key in error if key != "losses"}}
                if len(targets) == 1:
                    entry["loss"], entry["exact_loss"] = error["losses"][0], exact.losses[0]
                self.errors.append(entry)

    def everything(self):
        args = self.args
        pool = data.Pool(args.shapes, args.rotate)
        for number, (rows, classes) in enumerate(args.shapes, 1):
            batch = data.Batch(pool, rows, classes)
            threads = f"{args.threads} thread{'s' if args.threads > 1 else ''}"
            label = f"[{threads}, shape {number}/{len(args.shapes)}] {batch.name}"
            self.time_shape(batch, label)
            if args.errors:
                say(f"{label}: errors")
                self.shape_errors(batch)
        if args.errors:
            self.special_errors()
        self.harness.library.harness_stop()
        return {"versions": self.versions, "skipped": self.skipped, "notes": self.notes, "seed": data.SEED,
                "rotate": args.rotate, "results": self.results, "errors": self.errors}


def fastest_floors(results):
    """The results, of the floors only the fastest variant of each operation."""
    best = {}
    for result in results:
        if result["kind"] == "floor":
            name = result["name"]
            best[name] = min(best.get(name, result), result, key=lambda one: one["ns_per_logit"])
    return list(best.values()) + [result for result in results if result["kind"] != "floor"]


@functools.lru_cache(maxsize=1)
def exact_mean(batch):
    return float(data.Exact(batch.inputs[0], batch.targets, keep_gradient=False).losses.mean())


def check_result(case):
    """Fails unless the first call left the right loss and gradient: a call that does less is no peer."""
    batch = case.batch
    loss, grad = case.result(0)
    exact = exact_mean(batch)
    if not abs(loss - exact) <= 1e-3 * exact + 1e-6:
        raise Skip(f"{case.name} {case.mode} gives a loss of {loss} instead of {exact}")
    if grad is None:
        return
    for rows in (slice(0, CHECKED_ROWS), slice(max(0, batch.rows - CHECKED_ROWS), batch.rows)):
        exact = data.Exact(batch.inputs[0][rows], batch.targets[rows]).grad
        error = numpy.abs(grad[rows] / case.scale - exact)
        if not (error <= 1e-3 * numpy.abs(exact) + 1e-12).all():
            raise Skip(f"{case.name} {case.mode} gives a wrong gradient, by up to {error.max():.1e}")


def main():
    args = arguments()
    # No library can start more threads than it was told to, or run them elsewhere, in a process that has no other CPUs.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, args.cpus)
    try:
        results = Run(args).everything()
        args.out.write_text(json.dumps(results, default=float))
    except (Skip, OSError, MemoryError) as error:
        say(f"tools/peers: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Without the libraries' own ends, which take their time and may not like each other.
    os._exit(status)
