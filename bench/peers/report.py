"""What a run of the peers found, as tables."""
import math
import statistics

import benchlib  # from tools

MODES = ("forward", "in-place", "out-of-place")
MODE_TITLES = {"forward": "Forward: the loss", "in-place": "Loss and gradient, over the logits",
               "out-of-place": "Loss and gradient, to another array"}

# What the comparison has a column for; None: all that has none.
COLUMNS = {"two-pass": ("two-pass",), "best of the rest": None, "PyTorch eager": ("pytorch-eager",),
           "its best other form": ("pytorch-prealloc", "pytorch-softmax", "pytorch-compile", "pytorch-compile-out"),
           "JAX": ("jax", "jax-donated")}


def nanoseconds(value):
    return f"{value:.{3 if value < 10 else 2 if value < 100 else 0}f}"


def ulp(value):
    if value is None or value == "inf":
        return value or "-"
    if value >= 10000:
        digits, exponent = f"{value:.1e}".split("e")
        return f"{digits}e{int(exponent)}"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def factor(value):
    return f"{value:.{2 if value < 2 else 1 if value < 10 else 0}f}"


def print_table(title, head, rows, markdown):
    benchlib.print_table(f"### {title}" if markdown else title, head, rows, markdown)


class Results:
    def __init__(self, run):
        self.by_cell = {(one["threads"], one["mode"], one["name"], one["shape"]): one for one in run["results"]}
        self.threads = sorted({one["threads"] for one in run["results"]})
        self.shapes = list(dict.fromkeys(one["shape"] for one in run["results"]))
        self.kinds = {one["name"]: one["kind"] for one in run["results"]}

    def ns(self, threads, mode, name, shape):
        one = self.by_cell.get((threads, mode, name, shape))
        return one["ns_per_logit"] if one else math.inf

    def names(self, threads, mode):
        """Floors, then kernels, then peers; each kind from the fastest, over all shapes, to the slowest."""
        times = {}
        for (its_threads, its_mode, name, shape), one in self.by_cell.items():
            if (its_threads, its_mode) == (threads, mode):
                times.setdefault(name, []).append(math.log(one["ns_per_logit"]))
        order = {"floor": 0, "kernel": 1, "peer": 2}
        return sorted(times, key=lambda name: (order[self.kinds[name]], statistics.mean(times[name])))

    def only_out_of_place(self, name):
        modes = {key[1] for key in self.by_cell if key[2] == name}
        return self.kinds[name] == "peer" and "out-of-place" in modes and "in-place" not in modes

    def fused(self, threads, mode, name, shape):
        """What a peer takes for the same result: for a gradient in place, in whichever form it is faster."""
        modes = ("in-place", "out-of-place") if mode == "in-place" else (mode,)
        return min(self.ns(threads, one, name, shape) for one in modes)


def cell(one):
    if one is None:
        return "-"
    last = ulp(one.get("loss_ulp"))
    if one["mode"] != "forward":
        last += "/" + ulp(one.get("grad_ulp"))
    if one["kind"] == "floor":
        last = one["note"]
    return nanoseconds(one["ns_per_logit"]), f"±{100 * one['spread']:.0f}%", last


def time_tables(results):
    for threads in results.threads:
        for mode in MODES:
            rows = []
            for name in results.names(threads, mode):
                marked = f"{name} *" if mode == "out-of-place" and results.only_out_of_place(name) else name
                rows.append([marked, *(cell(results.by_cell.get((threads, mode, name, shape)))
                                       for shape in results.shapes)])
            if rows:
                yield f"{MODE_TITLES[mode]}, {threads} thread{'s' if threads > 1 else ''}", ["", *results.shapes], rows


def error_tables(run):
    tests = list(dict.fromkeys(one["test"] for one in run["errors"]))
    by_cell = {(one["name"], one["test"]): one for one in run["errors"]}
    names = list(dict.fromkeys(one["name"] for one in run["errors"]))

    def loss(name, test):
        one = by_cell.get((name, test))
        if one is None:
            return "-"
        return f"{one['loss']:.6g}" if "loss" in one else ulp(one["loss_ulp"])

    def gradient(name, test):
        one = by_cell.get((name, test))
        return "-" if one is None else f"{ulp(one['grad_ulp_others'])} / {ulp(one['grad_ulp_target'])}"

    exact = {f"for the {one['test']}, the loss itself, which is {one['exact_loss']:.6g}" for one in run["errors"]
             if "exact_loss" in one}
    if names:
        yield "; ".join(["Loss: largest error in ULP", *exact]), ["", *tests], [
            [name, *(loss(name, test) for test in tests)] for name in names]
        yield ("Gradient of each row's loss: largest error in ULP, of the other classes / of the target's",
               ["", *tests],
               [[name, *(gradient(name, test) for test in tests)] for name in names])


def compare(results):
    """One dictionary for each cell: this library's best kernel against every peer, as factors."""
    names = [name for name, kind in results.kinds.items() if kind != "floor"]
    kernels = [name for name in names if results.kinds[name] == "kernel"]
    peers = [name for name in names if results.kinds[name] == "peer"]
    for threads in results.threads:
        for mode in MODES:
            for shape in results.shapes:
                ours = min(results.ns(threads, mode, name, shape) for name in kernels)
                times = {name: results.fused(threads, mode, name, shape) for name in peers}
                factors = {name: ns / ours for name, ns in times.items() if not math.isinf(ns)}
                if factors:
                    yield {"threads": threads, "mode": mode, "shape": shape, "ns_per_logit": ours,
                           "factors": dict(sorted(factors.items(), key=lambda item: item[1]))}


def best(factors, names):
    """The closest of the named peers: (factor, name), or None."""
    return min(((factors[name], name) for name in names if name in factors), default=None)


def comparison_cell(cells, names, markdown):
    """Factors of the closest of the named peers, for one number of threads after the other; the peer, if it may be any
    but our own two-pass."""
    found = [best(one["factors"], names or set(one["factors"]) - {"two-pass"}) for one in cells]
    texts = ["-" if one is None else f"**{factor(one[0])}**" if markdown and one[0] <= 1 else factor(one[0])
             for one in found]
    who = dict.fromkeys(one[1] for one in found if one)
    return " / ".join(texts) + (f" ({' / '.join(who)})" if who and not names else "")


def comparison_table(comparisons, markdown):
    """A row for every shape and mode: ns per logit, and factors."""
    by_case = {}
    for one in comparisons:
        by_case.setdefault((one["mode"], one["shape"]), []).append(one)
    rows = [[f"{mode.replace('-', ' ')} {shape}", " / ".join(f"{one['ns_per_logit']:.2f}" for one in cells),
             *(comparison_cell(cells, names, markdown) for names in COLUMNS.values())]
            for (mode, shape), cells in by_case.items()]
    threads = " / ".join(map(str, dict.fromkeys(one["threads"] for one in comparisons)))
    return (f"ns per logit of xent's faster kernel, and how many times as long others take; threads: {threads}",
            ["", "xent", *COLUMNS], rows)


def floor_table(results):
    """A row for every kernel and mode: what memory takes at the least is part of the same run."""
    floors = [name for name, kind in results.kinds.items() if kind == "floor"]
    rows = []
    for name in (name for name, kind in results.kinds.items() if kind == "kernel"):
        for mode in MODES:
            ratios = [[results.ns(threads, mode, name, shape) / min(results.ns(threads, mode, one, shape) for one in floors)
                       for threads in results.threads] for shape in results.shapes]
            rows.append([f"{name} {mode.replace('-', ' ')}", *(" / ".join(map(factor, cell)) for cell in ratios)])
    return (f"How many times as long as the floor xent takes; threads: {' / '.join(map(str, results.threads))}",
            ["", *results.shapes], rows)


def summary(comparisons):
    slower = [one for one in comparisons if best(one["factors"], one["factors"])[0] <= 1]
    yield f"xent is the fastest in {len(comparisons) - len(slower)} of {len(comparisons)} cells."
    for one in slower:
        closest = best(one["factors"], one["factors"])
        yield (f"Not in: {one['shape']} {one['mode']}, {one['threads']} thread{'s' if one['threads'] > 1 else ''}: "
               f"{closest[1]} takes {closest[0]:.2f} of its time.")


def remarks(run):
    """What a reader has to know before believing the tables."""
    results = run["results"]
    waiting = [one for one in results if one["waiting"] > 0.05]
    if waiting:
        yield (f"In {len(waiting)} of {len(results)} cases, threads waited more than 5 % of the time for a CPU: the "
               "machine is busy; repeat it in a quiet moment.")
    for threads in sorted({one["threads"] for one in results}):
        cpus = {}
        for one in results:
            # Another thread's time counts when the system's clock ticks, which is too seldom for short calls.
            long_call = one["ns_per_logit"] * one["rows"] * one["classes"] > 5e6
            if one["threads"] == threads and long_call and one["waiting"] <= 0.05:
                cpus.setdefault(one["name"], []).append(one["cpus"])
        more = sorted(name for name in cpus if max(cpus[name]) > 1.05 * threads)
        if more:
            yield f"Used more CPUs than {threads}: {', '.join(more)}."
        idle = sorted(name for name in cpus if threads > 1 and statistics.median(cpus[name]) < 0.6 * threads)
        if idle:
            yield (f"Kept fewer than {0.6 * threads:.1f} of {threads} CPUs busy, being not parallel throughout: "
                   f"{', '.join(idle)}.")
    wide = [one["spread"] for one in results]
    if wide and statistics.median(wide) > 0.05:
        yield f"Half of the cases spread by ±{100 * statistics.median(wide):.0f}% or more: the machine is busy."


def by_version(versions):
    """The names of the peers that have the same library."""
    names = {}
    for name, version in versions.items():
        names.setdefault(version, []).append(name)
    return names


def print_comparison(results, markdown):
    comparisons = list(compare(results))
    if not comparisons:
        return
    print_table(*comparison_table(comparisons, markdown), markdown)
    print("In place, a peer counts with whichever of its two fused forms is faster.\n")
    print_table(*floor_table(results), markdown)
    for line in summary(comparisons):
        print(line)


def print_report(run, markdown=False):
    context, results = run["context"], Results(run)
    bullet = "- " if markdown else "  "
    print(f"{context['cpu']}, {context['caches']}")
    print(f"logits normal * 3 (seed {context['seed']}), medians of {context['repetitions']} repetitions, ± half the "
          "interquartile range; cases in random order")
    rotate = context["rotate"] >> 20
    if rotate:
        print(f"Calls take their logits from a pool of {rotate} MB or more in turn, so that they lie in memory.")
    else:
        print("Every call takes the same logits: what fits in the caches stays there.")
    print("PyTorch, JAX and ONNX Runtime are called from Python, whose few microseconds are theirs; the others from C.")
    print("Cells: ns per logit, spread, largest error in ULP of a loss / of a gradient entry; for a floor its variant.")
    print("* cannot write the gradient over the logits.\n")
    for table in time_tables(results):
        print_table(*table, markdown)
    for table in error_tables(run):
        print_table(*table, markdown)

    print("What they are, and what they do beyond one read (and one write):")
    for version, names in by_version(run["context"]["versions"]).items():
        print(f"{bullet}{', '.join(names)}: {version}")
    print()
    for name, note in run["notes"].items():
        print(f"{bullet}{name}: {note}")
    for what, reason in run["skipped"].items():
        print(f"{bullet}skipped {what}: {reason}")
    print()

    print_comparison(results, markdown)
    for line in remarks(run):
        print(line)
