"""Plant drifts on the machines of an applied lab, and tell as a table which of them a check names.

casemate lab exec NAME -- python -m drifts --inventory INVENTORY --seed 7 --count 200
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lab import sending

from drifts import sends


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: what was planted and what named it."""
    lines = ["| family | variant | place | named by | together |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row["family"], row["place"])):
        by = ", ".join(row["named"]) or row["fault"] or sends.why_open(row) or "**nothing**"
        by += " (--scan)" if row["scan"] else ""
        together = {None: "", True: "yes", False: "no"}[row["together"]]
        lines.append(f"| {row['family']} | {row['variant']} | `{row['place']}` | {by} | {together} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="drifts", description=__doc__)
    parser.add_argument("--inventory", required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--families", nargs="*", default=[], help="only these")
    parser.add_argument(
        "--together", type=int, default=0, help="plant so many at once, and one at a time only the rest"
    )
    parser.add_argument("--output", type=Path, help="all that was found, as JSON")
    asked = parser.parse_args()
    found, failed = {}, False
    for machine in sending.machines(asked.inventory):
        said = sends.planted(machine, asked.seed, asked.count, asked.together, asked.families)
        found[machine.name] = said
        planted = [row for row in said["rows"] if not row["fault"]]
        unnamed = [row for row in planted if not row["named"] and not sends.why_open(row)]
        is_open = [row for row in planted if not row["named"] and sends.why_open(row)]
        print(f"# {machine.name}, seed {asked.seed}, {said['seconds']} s\n\n{table(said['rows'])}\n")
        named = len(planted) - len(unnamed) - len(is_open)
        print(f"{len(planted)} planted, {named} named, {len(is_open)} known to be open, {len(unnamed)} not named")
        print(f"left behind: {said['left'] or 'nothing'}")
        failed |= bool(unnamed or said["left"] or len(planted) < len(said["rows"]))
    if asked.output:
        asked.output.write_text(json.dumps(found, indent=1))
    return 2 if failed else 0


sys.exit(main())
