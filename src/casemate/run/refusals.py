"""What the system refused to a task, told with the finding that the task was to settle. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def tell(findings: list[dict[str, Any]], settings: Mapping[str, Any], refused: Mapping[str, str]) -> None:
    """Block each failing finding about something in `refused` (package, account or unit -> why), and say why."""
    for made in findings:
        about = {*names(made["observed"]), *names(settings.get(made["control"], {}))}
        why = [f"{name}: {' '.join(str(said).split())}" for name, said in refused.items() if name in about]
        if why and made["status"] == "fail":
            made["action"], made["code"] = "blocked", "refused"
            made["reason"] = "; ".join([*([made["reason"]] if made["reason"] else []), "refused: " + "; ".join(why)])


def names(value: Any) -> Iterator[str]:
    """Every text in a value."""
    if isinstance(value, str):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from names(one)
