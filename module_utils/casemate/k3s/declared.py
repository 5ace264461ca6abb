"""What settings declare for our drop-ins of K3s' configuration, and what of a drop-in stands for one that is waived."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Sequence

from ..core.verdict import Left
from ..host.machine import Host
from . import dropins, files, resolvers
from . import values as k3s_values
from .files import FOLDER, LASTING, flag_of, items, lint
from .flags import SECRETS
from .values import wanted

Setting = Mapping[str, Any]


def declared(settings: Iterable[Setting], version: str) -> Dict[str, Dict[str, Any]]:
    """File -> key -> value of everything that these settings declare; raises ValueError for what K3s cannot take."""
    made_of: Dict[str, Dict[str, Any]] = {}
    wrong: List[str] = []
    for setting in settings:
        if "file" not in setting or setting.get("enforced") is False:
            continue
        made = made_of.setdefault(setting["file"], {})
        for key, value in wanted(setting).items():
            if key.endswith("-arg"):
                listed = made.setdefault(key, [])
                listed += [i for i in (value if isinstance(value, list) else [value]) if i not in listed]
            elif key in made:
                raise ValueError(f"{key} is declared twice for {setting['file']}")
            elif key in SECRETS:
                raise ValueError(f"{key} is a secret and may not stand in a configuration: name a file instead")
            else:
                made[key] = value
        wrong += [
            f"{fault} ({setting['file']})" for fault in lint(wanted(setting), setting.get("node", "server"), version)
        ]
    if wrong:
        raise ValueError("; ".join(dict.fromkeys(wrong)))
    return made_of


def written(setting: Setting) -> str:
    """The drop-in that a setting is written to; "" for none."""
    return f"{FOLDER}/{setting['file']}" if "file" in setting else ""


def left(setting: Setting, others: Iterable[Setting], host: Host) -> Left:
    """Keys and flags of a setting in its drop-in that no other one declares, but those that K3s cannot be without."""
    path = written(setting)
    if not path:
        return Left()
    mine = dict(next((one.entries for one in files.sources(host) if one.path == path), []))
    demanded = declared([one for one in others if one.get("file") == setting["file"]], _version(host))
    gone = set(k3s_values.left_over(mine, demanded.get(setting["file"], {})))
    stand: List[str] = []
    for key, value in wanted(setting).items():
        if key.endswith("-arg"):
            flags = {flag_of(item)[0] for item in k3s_values.listed(value)}
            there = [f"{key}: {flag}" for flag, _ in map(flag_of, items(mine.get(key, []))) if flag in flags]
            stand += there if key in gone else [one for one in there if one in gone]
        elif key in gone:
            stand.append(key)
    stays = [key for key in stand if key in LASTING or "options" in setting]
    free = [key for key in stand if key not in stays]
    if free:
        return Left(f"{path} holds {', '.join(free)}", host.barred(path))
    return Left(f"{path} holds {', '.join(stays)}", "the node could not go on without it") if stays else Left()


def lasting(setting: Setting, host: Host) -> bool:
    """Who the node is and what it joined, once that is written: it goes on being written."""
    return "options" in setting and host.stat(written(setting)) is not None


def take_back(waived: Sequence[Setting], others: Sequence[Setting], host: Host) -> None:
    """Write the drop-ins without the waived ones; one that would be empty goes. K3s is restarted by its role."""
    names = {setting["file"] for setting in waived}
    made = files.kept(
        {**{n: {} for n in names}, **declared(resolvers.chosen(list(others), host), _version(host))}, host
    )
    for name in sorted(names):
        secret = any(one.get("sensitive") for one in [*waived, *others] if one.get("file") == name)
        if made[name]:
            dropins.write(host, name, made[name], secret)
        else:
            host.remove(f"{FOLDER}/{name}")


def _version(host: Host) -> str:
    return str(host.context.get("version", ""))
