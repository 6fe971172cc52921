#!/usr/bin/env python3
"""Print the version that include/xent/xent.h states, so that it stands in one place."""
import pathlib
import re

header = (pathlib.Path(__file__).parent.parent / "include/xent/xent.h").read_text()
print(".".join(re.search(rf"XENT_VERSION_{part} (\d+)", header)[1] for part in ("MAJOR", "MINOR", "PATCH")))
