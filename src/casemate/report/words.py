"""What a person reads of a report on one line each: a finding's difference, and what was not evaluated. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from casemate.report.findings import Finding, Report
from module_utils.casemate.core.flow import lists_apart, plain, short

LONG = 240
"""Characters of a value that are shown; of a longer one the middle is left out. What to do is never shortened."""
LEAD = 20
"""Characters that are shown before the first one in which two long values differ."""
MOST = 4
"""Differing keys of one finding that are shown; the reports have all."""
NOTHING: tuple[Any, ...] = (None, [], {}, "")


def difference(finding: Finding) -> str:
    """One line: what should be and what is, why and what to do, and where that was seen if apply leaves it so."""
    why = " ".join(str(finding["reason"] or "").split())
    parts = [*compared(finding["expected"], finding["observed"], why), *([why] if why else [])]
    evidence = brief(finding["evidence"] or "")
    if finding["action"] in ("none", "blocked") and finding["evidence"] and evidence not in "; ".join(parts):
        parts.append(f"seen by: {evidence}")
    return "; ".join(parts) or "it differs, without a reason: please report this as a fault of Casemate"


def compared(expected: Any, observed: Any, why: str) -> Iterator[str]:
    """What should be and what is, by dotted path, as far as they differ and `why` does not tell both."""
    different: list[tuple[str, Any, Any]] = []
    if isinstance(expected, dict) and isinstance(observed, dict):
        if expected.keys() == observed.keys() or not why:
            different = list(leaves(expected, observed))
    elif not why or not (isinstance(expected, dict) or isinstance(observed, dict) or expected in NOTHING):
        different = [("", expected, observed)] if expected != observed else []
    differences = []
    for path, wanted, found in different:
        one, other = apart(wanted, found)
        known = why and ((one in why and other in why) or _is_digest(wanted) or _is_digest(found))
        lead = f"{path}: " if path else ""
        if known or one == other:
            continue
        if isinstance(wanted, list) and isinstance(found, list) and not short(wanted, found):
            differences += [f"{lead}{part}" for part in lists_apart(wanted, found) if part not in why]
        else:
            differences.append(f"{lead}expected {one}, is {other}")
    yield from differences[:MOST]
    if len(differences) > MOST:
        yield f"and {len(differences) - MOST} more"


def leaves(expected: Mapping[str, Any], observed: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted path, expected, observed) of each differing value; a key that is missing is None there."""
    for key in dict.fromkeys([*expected, *observed]):
        wanted, found = expected.get(key), observed.get(key)
        where = f"{path}.{key}".lstrip(".")
        if isinstance(wanted, dict) and isinstance(found, dict):
            yield from leaves(wanted, found, where)
        elif wanted != found:
            yield where, wanted, found


def _is_digest(value: Any) -> bool:
    """Whether a value tells a reader nothing but that it is another one."""
    if isinstance(value, list):
        return bool(value) and all(map(_is_digest, value))
    return isinstance(value, str) and value.startswith(("sha256:", "hmac:"))


def apart(wanted: Any, found: Any) -> tuple[str, str]:
    """Two values on one line each; of long ones that begin alike the beginning is left out."""
    both = [line(wanted), line(found)]
    alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*both, strict=False)))
    if max(map(len, both)) > LONG and alike > LONG // 2:
        both = [f"[… {alike - LEAD} …] {one[alike - LEAD :]}" for one in both]
    return brief(both[0]), brief(both[1])


def line(value: Any) -> str:
    """A value on one line."""
    if value in NOTHING:
        return "nothing"
    return " ".join(plain(value).split()) or "blanks"


def brief(value: Any) -> str:
    """A value on one line; of a long one the middle is left out, since names differ at their ends."""
    whole, half = line(value), LONG // 2
    return (
        whole if len(whole) <= LONG else f"{whole[:half].rstrip()} [… {len(whole) - LONG} …] {whole[-half:].lstrip()}"
    )


def not_evaluated(report: Report) -> list[tuple[str, list[str]]]:
    """What was not evaluated, grouped: (how many findings, and why), and the hosts for which that is so."""
    grouped: dict[str, list[str]] = {}
    for host in report["hosts"]:
        reasons: dict[str, list[str]] = {}
        for finding in host["findings"]:
            if finding["status"] == "not_evaluated":
                accepted = finding["code"] in report["summary"]["accepted"].get(host["name"], ())
                reasons.setdefault(finding["code"] + (" (accepted)" if accepted else ""), []).append(finding["reason"])
        for why, given in reasons.items():
            sentences = {" ".join(sentence.partition(":")[2].split()) for sentence in given}
            only = f": {sentences.pop()}" if len(sentences) == 1 else ""
            grouped.setdefault(f"{len(given)} {why}{only}", []).append(host["name"])
    return list(grouped.items())
