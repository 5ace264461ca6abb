"""K3s' configuration as K3s reads it: merged from its files, linted against its flag list.

Source: K3s' configuration files (config.yaml, then those of config.yaml.d whose name ends in .yaml or .yml in any
case, hidden ones too, by the bytes of their names: pkg/configfilearg; a later key replaces, `key+` appends). An unknown
key is skipped by a server and fatal to an agent, so it is refused by name here. With a file that is no YAML K3s does
not start: it is told as such, and so is every key that it may set.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from ..formats.yaml_subset import Value, YamlError, parse
from ..host.clock import Start, after, content_time
from ..host.machine import Host
from .flags import FLAGS, SHORT

BASE, FOLDER = "/etc/rancher/k3s/config.yaml", "/etc/rancher/k3s/config.yaml.d"
PROGRAM = "/usr/local/bin/k3s"
LASTING = ("secrets-encryption", "secrets-encryption-provider")
"""Keys that a waiver leaves as they are: without them K3s could not read what it has encrypted."""
VARIABLE = r"(K3S_[A-Z0-9_]+|CATTLE_[A-Z0-9_]+)="


class Source(NamedTuple):
    """One file: when its content changed, its entries in order, or what is wrong with it."""

    path: str
    when: float
    entries: List[Tuple[str, Value]]
    fault: str = ""
    text: str = ""


class Part(NamedTuple):
    """What one file gives a key."""

    path: str
    value: Value


Merged = Dict[str, List[Part]]


def flag_of(item: Any) -> Tuple[str, str]:
    """(flag, value) of one item of an *-arg list; a flag without a value means true."""
    name, given, value = str(item).lstrip("-").partition("=")
    return name, value if given else "true"


def text_of(value: Any) -> Value:
    """A declared value as K3s sees it."""
    if isinstance(value, (list, tuple)):
        return [str(text_of(item)) for item in value]
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def sources(host: Host) -> List[Source]:
    """Every file that K3s reads, in its order. One that is not of the YAML that we read has a fault and no entries."""
    found: List[Source] = []
    names = [name for name in host.glob(FOLDER + "/*", hidden=True) if name.lower().endswith((".yaml", ".yml"))]
    for path in [BASE, *names]:
        text, seen = host.text(path), host.stat(path)
        if seen is None or stat.S_ISDIR(seen.st_mode):
            continue
        if text is None:
            found.append(Source(path, content_time(seen), [], f"{path}: it is no file, and leads to none"))
            continue
        try:
            found.append(Source(path, content_time(seen), parse(text)))
        except YamlError as fault:
            found.append(Source(path, content_time(seen), [], f"{path}: {fault}", text))
    return found


def kept(files: Dict[str, Dict[str, Any]], host: Host) -> Dict[str, Dict[str, Any]]:
    """What is declared for our drop-ins, with what may never go although it is waived."""
    for source in sources(host):
        made = files.get(source.path[len(FOLDER) + 1 :])
        if made is not None:
            made.update({k: v for k, v in source.entries if k in LASTING and k not in made})
    return files


def unread(host: Host, found: Iterable[Source], start: Start) -> List[str]:
    """Files that changed after K3s was started, or their folder where one of them is gone."""
    late, folder = [one.path for one in found if after(one.when, start)], host.stat(FOLDER)
    return late or ([FOLDER] if folder and not host.loses(FOLDER) and after(content_time(folder), start) else [])


def planned(found: Iterable[Source], files: Mapping[str, Mapping[str, Any]]) -> List[Source]:
    """The files as they would be, once the owned ones (name -> key -> value) are written."""
    owned = [Source(f"{FOLDER}/{n}", 0.0, [(k, text_of(v)) for k, v in made.items()]) for n, made in files.items()]
    paths = [one.path for one in owned]
    made = [*owned, *(one for one in found if one.path not in paths)]
    return sorted(made, key=lambda one: os.fsencode(one.path))  # config.yaml sorts before its folder


def merged(found: Iterable[Source]) -> Merged:
    """Key -> what stands of it after the last file that replaced it, and what later ones append."""
    made: Merged = {}
    for path, _, entries, *_ in found:
        for key, value in entries:
            name = key[:-1] if key.endswith("+") else key
            name = SHORT.get(name, name)
            part = Part(path, value)
            made[name] = [*made[name], part] if key.endswith("+") and name in made else [part]
    return made


def value_of(parts: List[Part]) -> Optional[Value]:
    """The value that K3s makes of the parts of one key; None where nothing sets it."""
    return parts[0].value if len(parts) == 1 else [i for part in parts for i in items(part.value)] if parts else None


def hiding(found: List[Source], key: str) -> List[Source]:
    """Files that could not be read and may decide a key: it stands there, or in disguise, and nothing replaces it."""
    parts = merged(found).get(key)
    named, disguised = rf"(?<![\w-]){re.escape(key)}(?![\w-])", r"[\\!\ud800-\udfff]|[^\t\n\r -\uffff]"
    return [
        one
        for one in found
        if one.fault and re.search(f"{named}|{disguised}", one.text) and not (parts and parts[0].path > one.path)
    ]


def items(value: Value) -> List[str]:
    """A value as the list that K3s makes of it before it appends."""
    return value if isinstance(value, list) else [value] if value else []


def lint(keys: Mapping[str, Any], node: str, version: str) -> List[str]:
    """What is wrong with configuration keys for a node type and K3s version; empty when all are known."""
    minor = ".".join(re.findall(r"\d+", version)[:2]) or next(iter(FLAGS))
    if minor not in FLAGS:
        return [f"the keys of K3s {version} are not known to this release of Casemate"]
    known = FLAGS[minor][node]
    wrong = []
    for key in keys:
        if key in SHORT:
            wrong.append(f"{key} is short for {SHORT[key]}; write {SHORT[key]}")
        elif key not in known:
            near = difflib.get_close_matches(key, known, 1)
            wrong.append(f"{key} is no key of K3s {node}s" + (f"; did you mean {near[0]}?" if near else ""))
    return wrong


def faults(found: List[Source], node: str, version: str) -> List[str]:
    """What is wrong with the files: one that K3s cannot read, and keys that it does not know."""
    wrong = [one.fault for one in found if one.fault] + lint({}, node, version)
    places: Dict[str, List[str]] = {}
    for one in found:
        for key, _ in one.entries:
            places.setdefault(key[:-1] if key.endswith("+") else key, []).append(one.path)
    return wrong or [
        f"{fault} ({', '.join(paths)})" for key, paths in places.items() for fault in lint({key: ""}, node, version)
    ]


def beside(host: Host, unit: str) -> List[str]:
    """Settings that reach K3s past its files: program, arguments and environment of the unit, of systemd, of what runs.

    systemd gives every unit what it has itself (`systemctl set-environment`, DefaultEnvironment=). K3s overwrites the
    first of its variables with its title, so the process alone does not tell all. It sets no such variable itself.
    """
    shown = host.systemctl(f"{unit}.service", "ExecStart", "Environment", "EnvironmentFiles", "MainPID")
    wrong = []
    for program, line in re.findall(r"path=(.*?) ; argv\[\]=(.*?) ;", shown["ExecStart"]):
        called, *extra = line.split() or [""]
        wrong += [f"the unit starts {name}, not {PROGRAM}" for name in sorted({program, called} - {PROGRAM})]
        wrong += [f"the unit's command line sets {arg.split('=')[0]}" for arg in extra if arg.startswith("-")]
    names = re.findall(rf"(?:^|\s)\"?{VARIABLE}", shown["Environment"])
    wrong += [f"the unit's environment sets {name}" for name in names]
    general = re.findall(rf"(?m)^{VARIABLE}", host.run(["systemctl", "show-environment"]).out)
    wrong += [f"systemd's environment sets {name} (systemctl show-environment)" for name in general]
    try:
        given = host.text(f"/proc/{shown['MainPID']}/environ") or ""
    except ProcessLookupError:  # it ended just now
        given = ""
    running = re.findall(rf"(?:^|\0){VARIABLE}", given)
    wrong += [f"the running {unit} was given {name}; restart it" for name in running if name not in [*names, *general]]
    return wrong + ([f"the unit reads {shown['EnvironmentFiles'].split()[0]}"] if shown["EnvironmentFiles"] else [])
