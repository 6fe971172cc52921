#!/usr/bin/env python3
"""Checks that the C code in README.md is that of tests/examples.c, which is compiled and run."""

import pathlib
import re
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent


def normal(code):
    return "\n".join(line.rstrip() for line in textwrap.dedent(code).strip().splitlines())


def main():
    blocks = [normal(block) for block in re.findall(r"```c\n(.*?)```", (ROOT / "README.md").read_text(), re.S)]
    examples = [normal(code) for code in re.findall(r"    /\* [a-z -]+ \*/\n((?:(?!/\* end \*/).)*)    /\* end \*/",
                                                     (ROOT / "tests/examples.c").read_text(), re.S)]
    if not blocks or not examples:
        sys.exit("tests/readme.py: no code was found")
    missing = [example for example in examples if not any(example in block for block in blocks)]
    for example in missing:
        print(f"tests/readme.py: not in README.md:\n\n{example}\n", file=sys.stderr)
    strange = [block for block in blocks if not any(example in block for example in examples)]
    for block in strange:
        print(f"tests/readme.py: not in tests/examples.c:\n\n{block}\n", file=sys.stderr)
    sys.exit(1 if missing or strange else 0)


main()
