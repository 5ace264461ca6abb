"""Turn a report into JSON, one self-contained HTML file, or JUnit XML, and write it atomically."""

from __future__ import annotations

import datetime
import functools
import json
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from casemate import catalogue
from casemate.report import words
from casemate.report.findings import STATUSES, Finding, Report, is_accepted
from module_utils.casemate.core.finding import ABOUT
from module_utils.casemate.core.legible import legible
from module_utils.casemate.host.files import replacing

HERE = Path(__file__).parent
SHOWN_FIRST = {"error": 0, "fail": 1, "not_evaluated": 2, "waived": 3, "pass": 4}
LABELS = {"pass": "pass", "waived": "waived", "not_evaluated": "not evaluated", "fail": "fail",
          "error": "error", "open": "no control yet", "unseen": "not in this run", "part": "in part"}  # fmt: skip


@functools.cache
def schema() -> dict[str, Any]:
    """The published schema of a report."""
    read: dict[str, Any] = json.loads((HERE / "report.schema.json").read_text())
    return read


@functools.cache
def validator() -> Any:
    """The validator of that schema."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema())


class Fit(Report):
    """A report whose text is all legible."""


def fit(report: Report) -> Fit:
    """The report with all of its text legible: itself where it is so already."""
    return report if isinstance(report, Fit) else Fit(legible(report))


def validate(report: Report) -> None:
    """Raise ValueError, naming the place, when a report does not fit its schema, or a day in it is none."""
    if not validator().is_valid(_distinct(report)):
        wrong = next(validator().iter_errors(report), None)
        if wrong is not None:
            raise ValueError(f"{wrong.json_path}: {wrong.message[:300]}")
    ends = {one["waiver"]["expires"] for host in report["hosts"] for one in host["findings"] if one["waiver"]}
    for place, text in [("run.ended", report["run"]["ended"]), *(("waiver.expires", end) for end in sorted(ends))]:
        try:
            datetime.date.fromisoformat(text[:10])
        except ValueError:
            raise ValueError(f"{place}: {text!r} does not begin with a date") from None


def _distinct(report: Report) -> Any:
    """The report with one of the findings that are the same for the schema: hundreds of hosts say much the same.

    Those that are the very same object are looked at once, as all are that come by `handed`.
    Nobody has looked at the report yet: one that has no such findings comes back as it is.
    """
    looked: set[int] = set()
    seen: set[str] = set()
    known: dict[str, bool] = {}
    hosts = []
    try:
        for host in report["hosts"]:
            kept = []
            for finding in host["findings"]:
                if id(finding) in looked:
                    continue
                looked.add(id(finding))
                alike = repr(_for_the_schema(finding, known))
                if alike not in seen:
                    seen.add(alike)
                    kept.append(finding)
            hosts.append({**host, "findings": kept})
    except (AttributeError, KeyError, TypeError):
        return report
    return {**report, "hosts": hosts}


def _for_the_schema(finding: Finding, known: dict[str, bool]) -> dict[str, Any]:
    """What of a finding decides whether it fits: whether a value does by itself, where the schema asks no more of it.

    `known` holds for each value whether it does.
    """
    rules, together, anything = _rules()

    def fits(name: str, value: Any) -> bool:
        same = f"{name} {value!r}"
        if same not in known:
            known[same] = validator().evolve(schema=rules[name]).is_valid(value)
        return known[same]

    return {
        name: name in anything or (value if name in together or name not in rules else fits(name, value))
        for name, value in finding.items()
    }


@functools.cache
def _rules() -> tuple[dict[str, Any], set[str], set[str]]:
    """Of a finding in the schema: the rule of each value, which are looked at together, and which may be anything."""
    rule = schema()["$defs"]["finding"]
    rules = rule["properties"]
    together = {name for part in ("if", "then") for name in rule[part]["properties"]}
    return rules, together, {name for name, one in rules.items() if one is True}


def as_json(report: Report) -> str:
    """The report itself, one value a line: where Python indents, it takes five times as long."""
    return json.dumps(fit(report), separators=(",\n", ": "), ensure_ascii=False) + "\n"


def as_junit(report: Report) -> str:
    """One test suite a host, one case a finding; what was not evaluated is skipped, never passed."""
    suites = ElementTree.Element("testsuites", name="casemate")
    for host in fit(report)["hosts"]:
        suite = ElementTree.SubElement(suites, "testsuite", name=host["name"], tests=str(len(host["findings"])))
        if host["status"] != "ok":
            case = ElementTree.SubElement(suite, "testcase", classname=host["name"], name="host")
            ElementTree.SubElement(case, "error", message=host.get("message", host["status"]))
        for finding in host["findings"]:
            case = ElementTree.SubElement(suite, "testcase", classname=host["name"], name=finding["control"])
            tag = {"fail": "failure", "error": "error", "not_evaluated": "skipped", "waived": "skipped"}
            if finding["status"] in tag:
                wrong = finding["status"] in ("fail", "error")
                message = words.difference(finding) if wrong else finding["reason"] or "waived"
                ElementTree.SubElement(case, tag[finding["status"]], message=message)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


@functools.cache
def page() -> Any:
    """The compiled template."""
    from jinja2 import Environment, FileSystemLoader

    made = Environment(loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters["shown"] = shown
    made.globals["references"] = catalogue.references
    return made.get_template("report.html.j2")


def warm() -> None:
    """Do now, while hosts are waited for, what a report needs later."""
    page(), catalogue.threats(), catalogue.load(), validator()


def as_html(report: Report) -> str:
    """One page without any remote part, for people."""
    report, known = fit(report), catalogue.load()
    accepted = report["summary"]["accepted"]
    hosts = [
        {
            **host,
            "message": host.get("message", ""),
            "counts": counts(host["findings"]),
            "accepted": accepted.get(host["name"], ()),
            "rows": sorted(host["findings"], key=lambda f: (SHOWN_FIRST[f["status"]], f["control"])),
        }
        for host in report["hosts"]
    ]
    drawn: dict[tuple[int, bool], str] = {}

    def once(draw: Callable[[Any], str], finding: Finding, by_host: Collection[str]) -> str:
        """What is drawn for a finding: most hosts have the same ones, and drawing is what takes long."""
        same = (id(finding), is_accepted(finding, by_host))
        if same not in drawn:
            about = known.get(finding["control"], {}) | {key: finding[key] for key in ABOUT if finding[key]}
            drawn[same] = draw({**finding, "about": about, "accepted": same[1]})
        return drawn[same]

    made: str = page().render(
        report=report,
        hosts=hosts,
        verdict=verdict(report),
        counts=counts(f for h in report["hosts"] for f in h["findings"]),
        threats=threats(report, {m for c in known.values() for m in c["mitigations"]}),
        waivers=waivers(report),
        once=once,
        labels=LABELS,
        titles=catalogue.mitigations(),
    )
    return made


FORMATS: dict[str, Callable[[Report], str]] = {"json": as_json, "html": as_html, "junit": as_junit}


def write(path: Path, text: str) -> None:
    """Replace `path` atomically with mode 0600: a report tells an attacker where the gaps are.

    A link stays one, and what is no file (/dev/null, a pipe) is written to as it is: root could replace it for all.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    with replacing(str(path)) as (out, _):
        out.write(text.encode())


def unwritable(path: Path) -> str:
    """Why `write` could not write there, or "": what is no folder, or may not be written to, on the way to it."""
    if path.is_dir():
        return "it is a folder"
    if os.path.exists(path) and not path.is_file():
        return "" if os.access(path, os.W_OK) else "you may not write to it"
    folder = next(one for one in path.absolute().parents if os.path.exists(one))
    if not folder.is_dir():
        return f"{folder} is no folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"you may not write into {folder}"


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings have each status, best first."""
    made = dict.fromkeys(STATUSES, 0)
    for finding in findings:
        made[finding["status"]] += 1
    return made


def worst(made: dict[str, int]) -> str:
    """The worst status that occurs; `unseen` when none does."""
    return next((status for status in reversed(STATUSES) if made[status]), "unseen")


def threats(report: Report, served: set[str]) -> list[dict[str, Any]]:
    """The threats with each mitigation's worst finding; what is open, wholly or in part, never passes."""
    serving: dict[str, list[Finding]] = {}
    for finding in (f for host in report["hosts"] for f in host["findings"]):
        for served_by_it in {*finding["mitigations"], *(m.partition(".")[0] for m in finding["mitigations"])}:
            serving.setdefault(served_by_it, []).append(finding)
    made, gaps = [], catalogue.open_mitigations()
    for threat in catalogue.threats():
        rows = []
        for mitigation in threat["mitigations"]:
            own = counts(serving.get(mitigation["id"], ()))
            status = worst(own)
            if status == "unseen" and mitigation["id"] not in served:
                status = "open"
            gap = gaps.get(mitigation["id"], "")
            status = "part" if gap and status == "pass" else status
            rows.append({**mitigation, "gap": gap, "status": status, "counts": own, "total": sum(own.values())})
        total = counts(serving.get(threat["id"], ()))
        made.append({**threat, "rows": rows, "counts": total, "status": worst(total)})
    return made


def waivers(report: Report) -> list[dict[str, Any]]:
    """Every waiver in the report with its hosts and the days that it still holds (negative when expired)."""
    today = datetime.date.fromisoformat(report["run"]["ended"][:10])
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for host in report["hosts"]:
        for finding in host["findings"]:
            if finding["waiver"]:
                waiver = finding["waiver"]
                key = (finding["control"], waiver["reason"], waiver["owner"], waiver["expires"])
                days = (datetime.date.fromisoformat(waiver["expires"][:10]) - today).days
                found.setdefault(key, {"control": key[0], **waiver, "days": days, "hosts": []})["hosts"].append(
                    host["name"]
                )
    return sorted(found.values(), key=lambda w: (w["days"], w["control"]))


def verdict(report: Report) -> dict[str, str]:
    """The headline: what a reader should remember."""
    summary, hosts = report["summary"], report["hosts"]
    number, parts = summary["findings"], []
    unreachable = [h["name"] for h in hosts if h["status"] == "unreachable"]
    broken = [h["name"] for h in hosts if h["status"] == "error"]
    if broken:
        parts.append(f"{_several(len(broken), 'host')} could not be judged")
    if unreachable:
        parts.append(f"{_several(len(unreachable), 'host')} unreachable")
    if number["error"]:
        parts.append(f"{_several(number['error'], 'check')} broke")
    if number["fail"]:
        parts.append(f"{_several(number['fail'], 'finding')} fail{'s' if number['fail'] == 1 else ''}")
    open_ = number["not_evaluated"] - summary["accepted_count"]
    if open_:
        parts.append(f"{open_} not evaluated")
    if not parts and not hosts:
        parts.append("No host was judged")
    tone = {0: "pass", 1: "error", 2: "fail", 3: "error"}[summary["exit_code"]]
    if tone == "fail" and not number["fail"]:
        tone = "not_evaluated"
    held = "Every attack was withstood" if report["run"]["verb"] == "prove" else "Every control holds"
    if not parts and number["waived"]:
        held = "Every control holds or is waived"
    if not parts and number["not_evaluated"]:
        held = "Every control that was evaluated holds" + (" or is waived" if number["waived"] else "")
    return {"tone": tone, "headline": (", ".join(parts) or held)[:1].upper() + (", ".join(parts) or held)[1:]}


def shown(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "(none)"
    if isinstance(value, str):
        return value if value else "(empty)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value, indent=None if len(str(value)) < 80 else 1, ensure_ascii=False, default=str)


def _several(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
