"""K3s' configuration as K3s reads it: merged from its files, linted against its flag list.

Source: K3s' configuration files (config.yaml, then config.yaml.d/*.yaml by name; a later key replaces, `key+`
appends). An unknown key is skipped by a server and fatal to an agent, so it is refused by name here.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, Dict, List, Mapping, Tuple

from .base import Host
from .k3s_flags import FLAGS
from .miniyaml import Value, YamlError, parse

BASE, FOLDER = "/etc/rancher/k3s/config.yaml", "/etc/rancher/k3s/config.yaml.d"
Merged = Dict[str, Tuple[Value, str, float]]


def flag_of(item: Any) -> Tuple[str, str]:
    """(flag, value) of one item of an *-arg list; a flag without a value means true."""
    name, given, value = str(item).lstrip("-").partition("=")
    return name, value if given else "true"


def text_of(value: Any) -> Value:
    """A declared value as K3s sees it."""
    if isinstance(value, (list, tuple)):
        return [str(text_of(item)) for item in value]
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def merged(host: Host) -> Merged:
    """Key -> (value, deciding file, its time of change), as K3s merges its files; raises YamlError by file."""
    found: Merged = {}
    names = [n for n in host.glob(FOLDER + "/*") if n.lower().endswith((".yaml", ".yml"))]
    for path in [BASE, *names]:
        text, seen = host.text(path), host.stat(path)
        if text is None or seen is None:
            continue
        try:
            entries = parse(text)
        except YamlError as fault:
            raise YamlError(f"{path}: {fault}") from None
        for key, value in entries:
            name = key[:-1] if key.endswith("+") else key
            if key.endswith("+") and name in found:
                value = items(found[name][0]) + items(value)
            found[name] = (value, path, seen.st_mtime)
    return found


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
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            wrong.append(f"{key} is no key of K3s {node}s" + (f"; did you mean {near[0]}?" if near else ""))
    return wrong


def beside(host: Host, unit: str) -> List[str]:
    """Settings that reach K3s past its files: arguments and environment of the unit."""
    shown = host.systemctl(f"{unit}.service", "ExecStart", "Environment", "EnvironmentFiles")
    arguments = re.search(r"argv\[\]=(.*?) ;", shown["ExecStart"])
    extra = arguments[1].split()[2:] if arguments else []
    wrong = [f"the unit's command line sets {arg.split('=')[0]}" for arg in extra if arg.startswith("-")]
    names = re.findall(r"(?:^|\s)\"?(K3S_[A-Z0-9_]+|CATTLE_[A-Z0-9_]+)=", shown["Environment"])
    wrong += [f"the unit's environment sets {name}" for name in names]
    return wrong + ([f"the unit reads {shown['EnvironmentFiles'].split()[0]}"] if shown["EnvironmentFiles"] else [])
