"""What a run of the peers found, as tables."""
import math
import statistics

MODES = ("forward", "in-place", "out-of-place")
MODE_TITLES = {"forward": "Forward: the loss", "in-place": "Loss and gradient, over the logits",
               "out-of-place": "Loss and gradient, to another array"}

# Those that give the loss and its gradient by their own operators, nothing being composed by hand.
WHOLE_LOSS = ("pytorch-eager", "pytorch-prealloc", "pytorch-compile", "jax", "jax-donated")
PYTORCH_BEST = ("pytorch-prealloc", "pytorch-softmax", "pytorch-compile", "pytorch-compile-out")


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
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}x"


def aligned(column):
    """The cells of a column as texts, the parts of its tuples each in its own place."""
    widths = [max(map(len, parts)) for parts in zip(*(cell for cell in column if isinstance(cell, tuple)))]
    return [cell if isinstance(cell, str) else "  ".join(part.rjust(width) for part, width in zip(cell, widths))
            for cell in column]


def print_table(title, head, rows, markdown):
    columns = [[name, *aligned(column)] for name, column in zip(head, zip(*rows))]
    columns[0] = [cell if i == 0 or cell != columns[0][i - 1] else "" for i, cell in enumerate(columns[0])]
    widths = [max(map(len, column)) for column in columns]
    for column, width in zip(columns, widths):
        column.insert(1, "-" * width)
    print(f"### {title}\n" if markdown else title)
    for cells in zip(*columns):
        text = (" | " if markdown else "   ").join(cell.ljust(width) for cell, width in zip(cells, widths))
        print(f"| {text} |" if markdown else text.rstrip())
    print()


class Results:
    def __init__(self, run):
        self.by_cell = {(one["threads"], one["mode"], one["name"], one["shape"]): one for one in run["results"]}
        self.threads = run["context"]["threads"]
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
                ours, kernel = min((results.ns(threads, mode, name, shape), name) for name in kernels)
                times = {name: results.fused(threads, mode, name, shape) for name in peers}
                factors = {name: ns / ours for name, ns in times.items() if not math.isinf(ns)}
                if factors:
                    yield {"threads": threads, "mode": mode, "shape": shape, "kernel": kernel, "ns_per_logit": ours,
                           "factors": dict(sorted(factors.items(), key=lambda item: item[1]))}


def best(factors, names):
    """The closest of the named peers: (name, factor), or None."""
    return min(((factors[name], name) for name in names if name in factors), default=None)


def comparison_tables(comparisons):
    for threads in dict.fromkeys(one["threads"] for one in comparisons):
        rows = []
        for one in comparisons:
            if one["threads"] != threads:
                continue
            factors = one["factors"]
            closest, form = best(factors, factors), best(factors, PYTORCH_BEST)
            rows.append([one["mode"], one["shape"], (nanoseconds(one["ns_per_logit"]), one["kernel"]),
                         "yes" if closest[0] > 1 else "NO", (factor(closest[0]), closest[1]),
                         (factor(form[0]), form[1]) if form else "-",
                         *(factor(factors[name]) if name in factors else "-" for name in WHOLE_LOSS)])
        yield (f"How many times as long as xent's best kernel, {threads} thread{'s' if threads > 1 else ''}",
               ["", "shape", "xent", "fastest", "best peer", "PyTorch's best other form", *WHOLE_LOSS], rows)


def summary(comparisons):
    if not comparisons:
        return
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

    for table in comparison_tables(run["comparisons"]):
        print_table(*table, markdown)
    if run["comparisons"]:
        print("In place, a peer counts with whichever of its two fused forms is faster.")
    for line in [*summary(run["comparisons"]), *remarks(run)]:
        print(line)
