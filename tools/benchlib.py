"""What tools/bench, compare, bench-plot, peers and accuracy share: building, running, and printing tables."""
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Failure(Exception):
    """Something that the user should read, without a traceback."""


def say(text, end="\n"):
    print(text, file=sys.stderr, end=end, flush=True)


def run_command(name, main):
    """The exit status of a command: main() takes no arguments and raises Failure with what the user should know."""
    try:
        main()
    except (Failure, OSError) as error:
        say(f"{name}: {error}")
        return 1
    except KeyboardInterrupt:
        say(f"\n{name}: interrupted")
        return 130
    return 0


def missing_packages():
    """The Debian packages that the build needs and this system lacks."""
    missing = [package for tool, package in (("meson", "meson"), ("ninja", "ninja-build"), ("pkg-config", "pkg-config"))
               if not shutil.which(tool)]
    languages = (("gcc", "CC", ["cc", "gcc", "clang"]), ("g++", "CXX", ["c++", "g++", "clang++"]))
    for package, variable, compilers in languages:
        if not any(map(shutil.which, os.environ.get(variable, "").split()[:1] or compilers)):
            missing.append(package)
    if "pkg-config" in missing or subprocess.run(["pkg-config", "--exists", "benchmark"]).returncode != 0:
        missing.append("libbenchmark-dev")
    return missing


def can_set_up():
    """Whether tools/setup can install packages."""
    return (os.access(ROOT / "tools/setup", os.X_OK) and os.geteuid() == 0
            and pathlib.Path("/etc/debian_version").exists())


def set_up(group):
    subprocess.run([ROOT / "tools/setup", group], stdout=sys.stderr)


def require_packages():
    missing = missing_packages()
    if missing and can_set_up():
        say(f"missing: {' '.join(missing)}; running tools/setup bench")
        set_up("bench")
        missing = missing_packages()
    if missing:
        raise Failure("the benchmarks need what is not installed. On Debian or Ubuntu, as root:\n"
                      f"    apt-get install {' '.join(missing)}")


def make_writable(file):
    """Makes the file's directory, and fails before a long run instead of after it if the file cannot be written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    is_new = not file.exists()
    file.open("a").close()
    if is_new:
        file.unlink()


def run_tool(what, command):
    """Runs a command that the user need not see, unless it fails."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True)
    if result.returncode != 0:
        lines = result.stdout.strip().splitlines()
        raise Failure(f"{what} failed: {' '.join(map(str, command))}\n" + "\n".join(lines[-30:]))


def build_bench(directory):
    """Builds xent-bench in a build directory of this source tree and returns its path."""
    if not (directory / "build.ninja").exists():
        say(f"configuring {directory}")
        run_tool("configuring", ["meson", "setup", directory, ROOT, "--buildtype=release", "-Dbench=true",
                                 "-Dtests=false", "-Dtools=false"])
    say("building")
    run_tool("the build", ["meson", "compile", "-C", directory])
    program = directory / "bench/xent-bench"
    if not program.exists():
        raise Failure(f"{directory} was configured without the benchmarks: remove it, or run\n"
                      f"    meson configure -Dbench=true {directory}")
    return program


def run_with_progress(label, command, env=None):
    """Runs a command and returns its standard output; a terminal sees the seconds go by. Silent without a label."""
    start = time.monotonic()
    terminal = label and sys.stderr.isatty()
    if label:
        say(label, end="")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=env) as process:
        try:
            while True:
                try:
                    output, errors = process.communicate(timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    if terminal:
                        say(f"\r{label} {time.monotonic() - start:.0f} s", end="")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        if label:
            say("")
        raise Failure(f"{errors.strip() or 'no message'}\n"
                      f"(exit status {process.returncode} of {' '.join(map(str, command))})")
    if label:
        say((f"\r{label}" if terminal else "") + f" {time.monotonic() - start:.1f} s")
    return output


def case_key(name):
    """The name of a case as a tuple: shape, mode (or floor or limit), kernel (or variant), threads, kind of data."""
    shape, mode, variant, *rest = name.split("/")
    tags = dict(part.split(":", 1) for part in rest if ":" in part)
    return shape, mode, variant, int(tags["threads"]), tags.get("data", "normal")


def ns_per_logit(run, threads):
    """Of one repetition.

    A call on one thread never waits, so that its time on the CPU is its time without the other processes'. The share
    is a little above 1 for a short run, from reading the clocks. Several threads wait for each other, which counts.
    """
    share = min(run["cpu_share"], 1) if threads == 1 else 1
    return 1e9 / run["logits_per_second"] * share


def aligned(column):
    """The cells of a column as texts, the parts of its tuples each in its own place."""
    widths = [max(map(len, parts)) for parts in zip(*(cell for cell in column if isinstance(cell, tuple)))]
    return [cell if isinstance(cell, str) else "  ".join(part.rjust(width) for part, width in zip(cell, widths))
            for cell in column]


def print_table(title, head, rows, markdown=False):
    """A cell is a text or a tuple of texts, which stand aligned in their column."""
    columns = [[name, *aligned(column)] for name, column in zip(head, zip(*rows))]
    columns[0] = [cell if i == 0 or cell != columns[0][i - 1] else "" for i, cell in enumerate(columns[0])]
    widths = [max(map(len, column)) for column in columns]
    for column, width in zip(columns, widths):
        column.insert(1, "-" * width)
    print(title, end="\n\n" if markdown else "\n")
    for row in zip(*columns):
        text = (" | " if markdown else "   ").join(cell.ljust(width) for cell, width in zip(row, widths))
        print(f"| {text} |" if markdown else text.rstrip())
    print()


def cpu_name():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        fields = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    except OSError:
        fields = {}
    if "model name" in fields:
        return f"{fields['model name']} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"
    return platform.processor() or platform.machine()
