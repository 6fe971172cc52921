"""Random problems for the library, with PyTorch in float64 as the referee. tools/differential starts this in a Python
that has torch and numpy, and documents it."""
import argparse
import collections
import pathlib
import random
import sys
import time
import traceback

import numpy as np
import torch

import exceptions
import library as xent
from bce import Bce
from softmax import Softmax


def make_case(seed, index, has_f64):
    """Depends on the seed, the index and nothing else, but for whether there is float64."""
    rng = random.Random(f"{seed} {index}")
    return (Bce if rng.random() < 0.12 else Softmax)(rng, has_f64)


def same_bits(a, b):
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return all((a[k] is None and b[k] is None) or
               (a[k] == b[k] if isinstance(a[k], tuple) else a[k].tobytes() == b[k].tobytes()) for k in a)


def check(lib, case):
    """None, or what is wrong."""
    case.expect()
    first = None
    for isa in lib.isas:
        lib.select(isa)
        got = case.run(lib)
        complaint = case.complaint(got)
        if complaint:
            return f"{isa}: {complaint}"
        if first is None:
            first = got
        # NaN payloads of counts aside, every kernel has the same bits.
        elif not same_bits(got, first):
            return f"{isa} has other bits than {lib.isas[0]}"
    rng = case.rng
    if rng.random() < 0.5:
        isa = rng.choice(lib.isas)
        lib.select(isa)
        order = rng.choice((None, "backwards", rng))
        executor = xent.executor(rng.choice((1, 2, 3, 7, 64)), order)
        case.tags.add("executor")
        if not same_bits(case.run(lib, executor), first):
            return f"{isa} has other bits with an executor"
    return None


def command(seed, index):
    return f"tools/differential --seed {seed} --only {index}"


def run_one(lib, seed, index):
    """(the case or None, what is wrong or None)"""
    case = None
    try:
        case = make_case(seed, index, lib.has_f64)
        return case, check(lib, case)
    except Exception:  # whatever it is, it needs the command that shows it again
        lines = traceback.format_exc().strip().splitlines()
        return case, f"the tester failed: {lines[-1]} ({lines[-3].strip()})"


def describe(case):
    print(", ".join(sorted(case.tags)))
    for exception in sorted(case.exceptions):
        print(f"documented difference: {exception}")


def print_table(title, counts, missing=()):
    print(f"\n{title}")
    width = max([len(name) for name in [*counts, *missing]] or [0])
    for name in [*sorted(counts), *missing]:
        print(f"  {name:{width}}  {counts.get(name, 0)}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", required=True)
    parser.add_argument("--header", required=True, type=pathlib.Path)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--only", type=int)
    args = parser.parse_args()
    torch.set_num_threads(1)
    np.seterr(all="ignore")
    lib = xent.Library(args.library, args.header.read_text())
    print(f"kernels: {', '.join(lib.isas)}; PyTorch {torch.__version__}; "
          f"float64 is {'covered' if lib.has_f64 else 'not accepted by this library: left out'}", flush=True)

    if args.only is not None:
        case, complaint = run_one(lib, args.seed, args.only)
        if case:
            describe(case)
        print(complaint or "no difference")
        return 1 if complaint else 0

    failures = 0
    for line in exceptions.check(lib):
        print(line)
        failures += line.startswith("FAIL")
    start, tags, seen, done = time.monotonic(), collections.Counter(), collections.Counter(), 0
    while (args.count is None or done < args.count) and \
            (args.minutes is None or time.monotonic() - start < 60 * args.minutes):
        case, complaint = run_one(lib, args.seed, done)
        if complaint:
            failures += 1
            print(f"{command(args.seed, done)}    # {complaint}", flush=True)
            if failures >= 20:
                print("giving up after so many")
                break
        if case:
            tags.update(case.tags)
            seen.update(case.exceptions)
        done += 1
    print_table("configurations that had", tags)
    print_table("documented differences that configurations met", seen, [n for n in exceptions.NAMES if n not in seen])
    print(f"\n{done} configurations, seed {args.seed}, {len(lib.isas)} kernels, "
          f"{time.monotonic() - start:.0f} s: {failures or 'no'} difference{'s' * (failures != 1)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
