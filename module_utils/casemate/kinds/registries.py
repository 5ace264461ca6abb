"""From which registries a node pulls: the file that K3s reads, and what containerd makes of what K3s wrote of it.

A login never stands in a setting: it is known by a digest that is slow to make, and a task of the role, which shows
nothing, writes the file where there is one. containerd reads its folder at each pull, so what lies there is in force.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, Dict, List, Literal, Set, TypedDict

from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Left, Observation, Unasked, Unavailable, Verdict
from ..formats.hosts_toml import Endpoint, Unreadable, parse
from ..host.clock import after, content_time
from ..host.machine import EnforceError, Host
from ..host.text import split_lines
from ..k3s import registries as of_k3s
from .kind import Enforceable, Kind, Owned, Pass, each


class Needed(TypedDict):
    """What every setting of this kind says."""

    aspect: Annotated[
        Literal["file", "limited", "verified"],
        Key("K3s' file; that nothing else is asked; that whoever is asked has to prove who it is"),
    ]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind demands."""

    document: Annotated[Dict[str, Any], Key("what registries.yaml says beside logins")]
    logins: Annotated[Dict[str, str], Key("host -> digest of its login, as k3s/registries.py makes it; never a secret")]
    unset: Annotated[str, Key("why nobody lists registries; empty where somebody does")]
    unit: Annotated[str, Key("unit that reads the file when it starts")]
    path: Annotated[str, Key("the file, which then is ours; empty where nobody lists registries", pattern=r"|/\S+")]


HOME = "/var/lib/rancher/k3s/agent/etc/containerd"
CONFIG, DROPINS = f"{HOME}/config.toml", f"{HOME}/config-v3.toml.d/*.toml"
CONFIG_PATH = re.compile(r"(?:[^#]*[\s.{,])?[\"']?config_path[\"']?\s*=\s*[\"']([^\"']*)[\"']")
"""Where it begins a line, and behind a dot or within braces, as TOML has it, too."""
MODE = 0o600


def identity(setting: Setting) -> str:
    """One control for each aspect."""
    return setting["aspect"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """What is wrong with each aspect, or why nobody can say."""
    looks = {"file": _file, "limited": _limited, "verified": _verified}
    return each(settings, lambda setting: looks[setting["aspect"]](setting, host))


def _file(setting: Setting, host: Host) -> Observation:
    found, state = host.text(of_k3s.PATH), host.stat(of_k3s.PATH)
    barred = host.barred(of_k3s.PATH) or ""
    if setting.get("unset"):
        if found is None or not of_k3s.is_ours(found):
            raise Unasked(setting["unset"])
        return {"faults": [f"{of_k3s.PATH} is still there, and nobody lists registries any more"], "barred": barred}
    if found is None or state is None:
        return {"faults": [f"{of_k3s.PATH} is missing"], "barred": barred}
    document = of_k3s.parse(found)
    if document is None or of_k3s.without_logins(document) != setting["document"]:
        return {"faults": [f"{of_k3s.PATH} says something else than is declared"], "barred": barred}
    if of_k3s.logins(document) != setting["logins"]:
        return {"faults": [f"{of_k3s.PATH} has other logins than are declared"], "barred": barred}
    started = host.started(setting["unit"])
    late = host.dated(of_k3s.PATH) if started and after(content_time(state), started) else ""
    faults = [f"{setting['unit']} still runs with what was there before {late} changed"] if late else []
    return {"faults": faults, "barred": barred if late else "", "stale": bool(late)}


def _hosts(host: Host) -> Dict[str, Any]:
    """Name of a folder -> whom containerd asks there, or why that cannot be said."""
    if host.stat(CONFIG) is None:
        raise Unavailable("k3s", "K3s has not run here, so containerd has no settings")
    found: Dict[str, Any] = {}
    for folder in host.glob(f"{of_k3s.FOLDER}/*", hidden=True):
        name, text = folder.rpartition("/")[2], host.text(f"{folder}/hosts.toml") or ""
        try:
            found[name] = parse(text) if text else [Endpoint("", False)]
        except Unreadable as why:
            found[name] = f"{folder}/hosts.toml: {why}"
    return found


def _elsewhere(host: Host) -> List[str]:
    """Where containerd is told to look into another folder."""
    found = []
    for path in [CONFIG, *host.glob(DROPINS, hidden=True)]:
        for line in split_lines(host.text(path) or ""):
            given = CONFIG_PATH.match(line)
            if given and given[1] != of_k3s.FOLDER:
                found.append(f"{path} has containerd read {given[1] or 'no folder'} instead of {of_k3s.FOLDER}")
    return found


def _limited(setting: Setting, host: Host) -> Observation:
    if setting.get("unset"):
        raise Unasked(setting["unset"])
    return {"faults": beyond(of_k3s.asked(setting["document"]), _hosts(host)) + _elsewhere(host)}


def beyond(wanted: Dict[str, List[str]], found: Dict[str, Any]) -> List[str]:
    """How whom containerd asks differs from whom it should ask. Pure."""
    faults = []
    for name in sorted({*wanted, *found}):
        endpoints = found.get(name)
        if isinstance(endpoints, str):
            faults.append(endpoints)
            continue
        itself = "that registry itself" if name == of_k3s.DEFAULT else f"https://{name}/v2"
        asked = [one.url or itself for one in endpoints or ()]
        if asked == wanted.get(name):
            continue
        if name == of_k3s.DEFAULT:
            faults.append(f"for a registry that is not listed it asks {', '.join(asked) or 'that registry itself'}")
        elif name not in wanted:
            faults.append(f"for {_registry(name)}, which is not listed, it asks {', '.join(asked)}")
        else:
            told = ", ".join(asked) or "nobody"
            faults.append(f"for {name} it asks {told} instead of {', '.join(wanted[name])}")
    return faults


def _registry(folder: str) -> str:
    """The registry of a folder, where its port may be written between two _."""
    return re.sub(r"_([0-9]+)_$", r":\1", folder)


def _verified(setting: Setting, host: Host) -> Observation:
    return {"faults": unproven(_hosts(host))}


def unproven(found: Dict[str, Any]) -> List[str]:
    """Who is asked without having to prove who it is, and who is asked for every registry. Pure."""
    faults = []
    for name, endpoints in sorted(found.items()):
        if isinstance(endpoints, str):
            faults.append(endpoints)
            continue
        for one in endpoints:
            asked = one.url or f"https://{_registry(name)}"
            if one.url.startswith("http:"):
                faults.append(f"{name}: {asked} is asked in plain HTTP")
            if one.unverified:
                faults.append(f"{name}: the certificate of {asked} is not verified (skip_verify)")
            if name == of_k3s.DEFAULT and one.url and one.url != of_k3s.NOWHERE:
                faults.append(f"{name}: {asked} is asked for every registry that has no settings of its own")
    return faults


RIGHT = {
    "file": "as declared",
    "limited": "only the listed registries are asked",
    "verified": "whoever is asked has to prove who it is",
}
PLACES = {"file": of_k3s.PATH, "limited": of_k3s.FOLDER, "verified": of_k3s.FOLDER}


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that nothing is wrong."""
    faults: List[str] = seen["faults"]
    right, place = RIGHT[setting["aspect"]], PLACES[setting["aspect"]]
    barred = seen.get("barred", "") if faults else ""
    return Verdict(
        ok=not faults,
        expected=right,
        observed=faults or right,
        reason=several([*faults, *([barred] if barred else [])]),
        evidence=f"cat {place}" if setting["aspect"] == "file" else f"cat {place}/*/hosts.toml",
        stale=(setting["unit"],) if seen.get("stale") else (),
        blocked_by=barred,
        unwritable=barred,
    )


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Write the file, or remove it where nobody lists registries any more. One with logins a task has written."""
    for setting in (settings[i] for i in sorted(failing) if settings[i]["aspect"] == "file"):
        if setting.get("unset"):
            host.remove(of_k3s.PATH)
        elif setting["logins"]:
            if any("runs with" not in fault for fault in _file(setting, host)["faults"]):
                raise EnforceError(f"{of_k3s.PATH} is not as the role's task wrote it; apply again")
        else:
            data = of_k3s.text(setting["document"]).encode()
            if host.read(of_k3s.PATH) != data:
                host.write(of_k3s.PATH, data, MODE, (0, 0), sensitive=True)


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """The file, where it is ours."""
    ours = setting["aspect"] == "file" and of_k3s.is_ours(host.text(of_k3s.PATH) or "")
    return Left(of_k3s.PATH if ours else "")


def take_back(waived: List[Setting], wanted: List[Setting], host: Host) -> None:
    """Remove the file."""
    if any(setting["aspect"] == "file" for setting in waived):
        host.remove(of_k3s.PATH)


def written(setting: Setting) -> str:
    """The file of ours, where registries are listed."""
    return setting.get("path", "")


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    places=lambda setting: [PLACES[setting["aspect"]]],
    read_at_start=lambda setting: [setting["unit"]] if "unit" in setting else [],
    owned=Owned(left, take_back, written=written),
)
