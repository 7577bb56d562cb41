"""Prints the coverage of each room, in lines and branches; fails if it is too low.

Reads the output of `coverage combine` (its place is in setup.cfg). The total must be at least 90 %,
and no room may be without tests.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path, PurePath

import coverage

REPORT = Path("build/coverage/report.json")
LEAST = 90.0
LEAST_OF_A_ROOM = 50.0
COUNTED = ("covered_lines", "num_statements", "covered_branches", "num_branches")


def files() -> dict[str, dict[str, int]]:
    """The counts of each file of the project."""
    measured = coverage.Coverage()
    measured.load()
    measured.json_report(outfile=str(REPORT))
    found = json.loads(REPORT.read_text())["files"]
    return {name: file["summary"] for name, file in found.items()}


def room_of(name: str) -> str:
    """'tfrobust/attacks' of 'tfrobust/attacks/fab.py', 'tfrobust' of 'tfrobust/errors.py'."""
    return "/".join(PurePath(name).parts[:-1][:2])


def share(lines: int, statements: int, branches: int, all_branches: int) -> float:
    """Covered lines and branches together, in per cent."""
    return 100 * (lines + branches) / max(1, statements + all_branches)


def main() -> int:
    """Prints the table; 1 if coverage is too low."""
    rooms: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for name, summary in files().items():
        for i, counted in enumerate(COUNTED):
            rooms[room_of(name)][i] += summary[counted]
            rooms["total"][i] += summary[counted]
    total = rooms.pop("total")
    print(f"{'room':<24}{'lines':>16}{'branches':>16}{'both':>10}")
    for room, counts in [*sorted(rooms.items()), ("total", total)]:
        lines, branches = (f"{a} of {b}" for a, b in (counts[:2], counts[2:]))
        print(f"{room:<24}{lines:>16}{branches:>16}{share(*counts):>8.1f} %")
    poor = [room for room, counts in sorted(rooms.items()) if share(*counts) < LEAST_OF_A_ROOM]
    if poor:
        print(f"Hardly tested: {', '.join(poor)}.", file=sys.stderr)
    if share(*total) < LEAST:
        print(f"Expected at least {LEAST:g} % of lines and branches.", file=sys.stderr)
    return int(bool(poor) or share(*total) < LEAST)


if __name__ == "__main__":
    sys.exit(main())
