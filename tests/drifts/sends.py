"""Send the generator to a machine of an applied lab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from lab import sending

MAIN = "from drifts.on_machine import main\nmain()\n"
ONLY_HERE = {"__main__.py", "sends.py"}


def families_of_files() -> dict[str, list[dict[str, Any]]]:
    """Of what they are (hosts, nodes, servers) -> families, as hosts.Files takes them."""
    folder = Path(__file__).parent / "families"
    return {path.stem: yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yml"))}


def why_open(row: Mapping[str, Any]) -> str:
    """Why no control names such a drift, as open.yml has it; empty where one has to."""
    known = yaml.safe_load((Path(__file__).parent / "open.yml").read_text())
    fitting = (one for one in known if one["family"] == row["family"])
    patterns = ((one, one.get("places", ["*"])) for one in fitting)
    return next((one["why"] for one, places in patterns if any(fnmatchcase(row["place"], p) for p in places)), "")


def planted(
    machine: sending.Machine, seed: int, count: int, together: int = 0, only: Sequence[str] = (), peers: bool = False
) -> dict[str, Any]:
    """What on_machine.py says of one machine: of drifts one at a time and in pairs, or so many together and of what is
    not named then, one at a time. With `peers`, what a scan and other tools name of so many together.
    """
    controls = [one for one in machine.controls if one.get("vantage", "self") == "self"]
    given = {"controls": controls, "context": machine.context, "seed": seed, "count": count, "peers": peers}
    of = families_of_files()
    given |= {"together": together, "only": list(only), "families": [one for held in of.values() for one in held]}
    given |= {"of_servers": [one["name"] for one in of["servers"]]}
    files = {f"drifts/{path.name}": path for path in Path(__file__).parent.glob("*.py") if path.name not in ONLY_HERE}
    return machine.ran({"__main__.py": MAIN, **files}, given, seconds=7200)
