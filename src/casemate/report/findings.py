"""Findings and reports: merge what several passes saw, count it, and judge it. Everything here is pure.

A report is `{"schema_version", "tool", "run", "hosts", "summary"}`; its schema: `report/report.schema.json`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from casemate import __version__, catalogue
from module_utils.casemate.core.finding import KEYS as KEYS
from module_utils.casemate.core.finding import STATUSES as STATUSES
from module_utils.casemate.core.finding import Finding as Finding
from module_utils.casemate.core.finding import finding
from module_utils.casemate.core.verdict import UNASKED

Report = dict[str, Any]

SCHEMA_VERSION = 2
STOPPED = "not examined: the run stopped before it came to this host"
DOUBLE = (
    "The K3s in use is a double, not a K3s: everything that needs the real API server, kubelet or etcd "
    "is not evaluated ({hosts})."
)


def now() -> str:
    """The time in UTC, as ISO 8601 with seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def settle(passes: list[Finding]) -> Finding:
    """Merge the passes of one run over one control: the last one counts.

    What any pass would have changed, or changed, and the last one finds settled was changed by this run, from
    what was seen then to what is seen now, whichever role or task did it.
    """
    last = passes[-1]
    first = next((f for f in passes if f["action"] in ("would_change", "changed")), None)
    if first is None or (first is last and last["action"] != "changed"):
        return last
    before = first["before"] if first["action"] == "changed" else first["observed"]
    taken_back = last["status"] == "waived" and last["action"] in ("none", "changed")
    if last["status"] == "pass" or taken_back:
        return {**last, "action": "changed", "before": before, "after": last["observed"]}
    return {**last, "before": before}


def host_entry(name: str, status: str, findings: Iterable[Finding], message: str = "") -> dict[str, Any]:
    """One host of a report. A host without any finding was not judged, so it is never ok."""
    made = [one if tuple(one) == KEYS else {key: one[key] for key in KEYS} for one in findings]
    if status == "ok" and not made:
        status, message = "error", message or "no control was judged on this host"
    return {"name": name, "status": status, "findings": made, **({"message": message} if message else {})}


def is_accepted(finding: Finding, accepted: Iterable[str]) -> bool:
    """Whether a finding that was not evaluated has a reason that the operator accepts, or nobody asks for it."""
    return finding["status"] == "not_evaluated" and finding["code"] in (UNASKED, *accepted)


def exit_code(hosts: Iterable[Mapping[str, Any]], accepted: Mapping[str, Iterable[str]]) -> int:
    """0 settled, 2 something fails or was not evaluated, 3 a host was unreachable, 1 the tool failed.

    The worst wins: 1, then 3, then 2. A host that was never reached because the run stopped at another one
    adds nothing to what that other host says.
    """
    hosts = list(hosts)
    seen = {2} if any(
        f["status"] in ("fail", "not_evaluated") and not is_accepted(f, accepted.get(h["name"], ()))
        for h in hosts for f in h["findings"]
    ) else set()  # fmt: skip
    stopped = [h for h in hosts if h["status"] == "error" and h.get("message") == STOPPED]
    broken = [h for h in hosts if h["status"] == "error" and h not in stopped]
    if any(h["status"] == "unreachable" for h in hosts):
        seen.add(3)
    elif stopped:
        seen.add(1)
    if not hosts or broken or any(f["status"] == "error" for h in hosts for f in h["findings"]):
        seen.add(1)
    return next((rank for rank in (1, 3, 2) if rank in seen), 0)


def summarise(hosts: list[dict[str, Any]], accepted: Mapping[str, Iterable[str]]) -> dict[str, Any]:
    """Counts by host status and finding status, what was accepted, and the exit code that follows."""
    every = [f for host in hosts for f in host["findings"]]
    return {
        "exit_code": exit_code(hosts, accepted),
        "hosts": {s: sum(h["status"] == s for h in hosts) for s in ("ok", "unreachable", "error")},
        "findings": {s: sum(f["status"] == s for f in every) for s in STATUSES},
        "changed": sum(f["action"] == "changed" for f in every),
        "accepted": {h["name"]: sorted(accepted[h["name"]]) for h in hosts if accepted.get(h["name"])},
        "accepted_count": sum(is_accepted(f, accepted.get(h["name"], ())) for h in hosts for f in h["findings"]),
    }


def notes(hosts: Iterable[Mapping[str, Any]]) -> list[str]:
    """What a reader must know before anything else: whether a double stood in for K3s."""
    lacking = [
        h["name"]
        for h in hosts
        if any(f["status"] == "not_evaluated" and f["code"] == "api_semantics" for f in h["findings"])
    ]
    return [DOUBLE.format(hosts=", ".join(lacking))] if lacking else []


def report(
    verb: str,
    started: str,
    hosts: list[dict[str, Any]],
    accepted: Mapping[str, Iterable[str]],
    said: Iterable[str] = (),
    left_out: Iterable[str] = (),
) -> Report:
    """Assemble the report of one run.

    `said` are further notes, such as why it ended early; `left_out` the expensive controls nobody asked for.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "casemate", "version": __version__},
        "run": {"verb": verb, "started": started, "ended": now(), "notes": [*notes(hosts), *said]},
        "hosts": hosts,
        "summary": {**summarise(hosts, accepted), "left_out": sorted(set(left_out))},
    }


def upgraded(report: Report) -> Report:
    """A report as this version has it: version 1 had less in a finding, and its code at the head of the reason.

    Raises ValueError for what is no report of version 1 although it says so, and for what is no mapping at all.
    """
    if not isinstance(report, dict):
        raise ValueError("it is no mapping")
    if report.get("schema_version") != 1:
        return report
    known = catalogue.load()
    try:
        hosts = [{**host, "findings": [_upgraded(old, known) for old in host["findings"]]} for host in report["hosts"]]
    except (AttributeError, KeyError, TypeError) as wrong:
        raise ValueError(f"it is no report of version 1: {wrong}") from wrong
    return {**report, "schema_version": SCHEMA_VERSION, "hosts": hosts}


def _upgraded(old: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> Finding:
    about = known.get(old["control"], {"id": old["control"], "setting": {"kind": ""}})
    code = str(old["reason"]).partition(":")[0] if old["status"] == "not_evaluated" else ""
    return {**finding(about, old["status"], code), **old}


def combine(reports: list[Report]) -> Report:
    """Merge runs over the same hosts into one report.

    A later `apply` or `check` replaces what an earlier one saw, but what was changed stays told. An attack
    (`prove`) only ever makes a finding worse, and adds its evidence: what is set but can be broken fails.
    """
    ordered = sorted(reports, key=lambda r: (r["run"]["verb"] == "prove", r["run"]["started"]))
    merged: dict[str, dict[str, Finding]] = {}
    states: dict[str, tuple[str, str]] = {}
    accepted: dict[str, list[str]] = {}
    for one in ordered:
        attack = one["run"]["verb"] == "prove"
        accepted.update(one["summary"]["accepted"])
        for host in one["hosts"]:
            findings = merged.setdefault(host["name"], {})
            status, message = states.get(host["name"], ("ok", ""))
            if not attack or host["status"] != "ok":
                status, message = host["status"], host.get("message", "")
            states[host["name"]] = (status, message)
            for new in host["findings"]:
                old = findings.get(new["control"])
                findings[new["control"]] = _proven(old, new) if attack else _superseded(old, new)
    hosts = [host_entry(name, *states[name][:1], found.values(), states[name][1]) for name, found in merged.items()]
    judged = {f["control"] for host in hosts for f in host["findings"]}
    left_out = {cid for r in reports for cid in r["summary"].get("left_out", ())} - judged
    made = report("report", min(r["run"]["started"] for r in reports), hosts, accepted, left_out=left_out)
    made["run"]["notes"] = list(
        dict.fromkeys([*made["run"]["notes"], *(n for r in reports for n in r["run"]["notes"])])
    )
    made["run"]["sources"] = [
        {key: r["run"][key] for key in ("verb", "started", "ended")}
        for r in sorted(reports, key=lambda r: r["run"]["started"])
    ]
    return made


def _superseded(old: Finding | None, new: Finding) -> Finding:
    if old and old["action"] == "changed" and new["action"] == "none":
        return {**new, "action": "changed", "before": old["before"], "after": new["observed"]}
    return dict(new)


def _proven(old: Finding | None, new: Finding) -> Finding:
    if old is None:
        return dict(new)
    if old["status"] == "waived" and new["status"] in ("fail", "waived"):
        return {**old, "evidence": _join(old["evidence"], new["evidence"])}
    seen_at_last = old["code"] == "vantage" and old["status"] == "not_evaluated"  # only an attack sees it from there
    worse = seen_at_last or STATUSES.index(new["status"]) > STATUSES.index(old["status"])
    base = {
        **old,
        **({k: new[k] for k in ("status", "code", "expected", "observed", "reason", "waiver")} if worse else {}),
    }
    return {**base, "evidence": _join(old["evidence"], new["evidence"])}


def _join(*parts: Any) -> str:
    return "\n".join(str(part) for part in parts if part)
