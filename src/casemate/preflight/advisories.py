"""The gate: a K3s with an advisory that counts and that nobody answers for is not installed.

It is asked where the operator has named data (`casemate_advisory_data`), and only of a K3s that a host does not have
yet: what is installed is a finding of the control. Pure but for reading files of the controller.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from casemate.preflight import host_facts
from casemate.supply import advisories, release_contents
from casemate.supply.advisories import DataError
from casemate.supply.advisory_policy import Installed, Policy, judged, policy
from casemate.supply.artifact_lock import architecture, load
from casemate.supply.component import Component

PREFIX = "casemate_advisory_"
SHOWN = 10
"""Advisories that a refusal names; `casemate advisories` names all."""
TODO = (
    "Install a release without them (casemate_k3s_version), answer each in casemate_advisory_waivers as "
    "{ID: {reason, owner, expires}} or by OpenVEX in casemate_advisory_vex, or raise casemate_advisory_severity"
)


def asked(values: Mapping[str, Any]) -> Policy:
    """The policy of a host's inputs."""
    return policy({name: values.get(PREFIX + name) for name in ("data", "vex", "severity", "max_age", "waivers")})


def data_problems(values: Mapping[str, Any]) -> list[str]:
    """Why the data or a statement cannot be read."""
    try:
        judged(Installed(()), asked(values), datetime.datetime.now(datetime.UTC))
    except DataError as refused:
        return [f"{PREFIX}data or {PREFIX}vex: {refused}"]
    return []


def gate(values: Mapping[str, Any], machine: str, digest: str) -> tuple[list[str], list[str]]:
    """(problems, warnings) of the K3s that a host of a machine type would get, where its own has another digest.

    Raises LockError.
    """
    wanted = asked(values)
    release = load(host_facts.lock(values)).release(values.get("casemate_k3s_version"))
    if not wanted.data or digest == release.binary(machine)[1]:
        return [], []
    components, warnings = contents(values, release.version, machine)
    installed = Installed(tuple(components), {}, architecture(machine), release.version)
    try:
        seen = judged(installed, wanted, datetime.datetime.now(datetime.UTC))
    except DataError as refused:
        return [f"{PREFIX}data or {PREFIX}vex: {refused}"], warnings
    problems = list(seen.stale)
    if not seen.has_go:
        warnings.append(
            f"{PREFIX}data holds nothing in the form of OSV about Go modules, so K3s {release.version} is compared "
            "with no advisory. Add such as data/osv of golang.org/x/vulndb"
        )
    if seen.open:
        lines = advisories.in_words(seen.open)
        more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        named = "".join(f"\n  {line}" for line in lines[:SHOWN])
        problems.append(f"K3s {release.version} has advisories that nobody answers for:{named}{more}\n  {TODO}")
    if seen.silent:
        names = ", ".join(sorted({one.name for one in seen.silent}))
        warnings.append(
            f"of K3s {release.version} nobody knows the version of {names}: advisories about it are not judged"
        )
    return problems, warnings


def contents(values: Mapping[str, Any], version: str, machine: str) -> tuple[list[Component], list[str]]:
    """(components, warnings) of the release that would be installed: whole where its file lies on this controller."""
    known = release_contents.by_version(version)
    found = host_facts.brought(values, machine).get("k3s")
    if found is None:
        why = "it is downloaded by the hosts"
    else:
        try:
            return release_contents.by_file(*found), []
        except release_contents.ContentsError as refused:
            why = str(refused)
    told = f"what K3s {version} is made of is not known here, since {why}: its gate asks for K3s and Kubernetes alone"
    return known, [f"{told}; a copy of the release in casemate_artifact_dir is judged whole"]
