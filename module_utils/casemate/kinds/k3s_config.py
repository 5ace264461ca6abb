"""K3s' own configuration: merged as K3s merges it, linted against its flag list, compared with what runs.

`*-arg` keys hold one item for each flag of a component; each item is a control of its own.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Set, Tuple

from ..base import EnforceError, Host, Observation, Setting, Verdict
from ..k3s_files import BASE, FOLDER, beside, flag_of, items, lint, merged, text_of
from ..k3s_flags import SECRETS
from ..miniyaml import Value, parse, render
from ..schema import Field
from .journal_args import COMPONENTS, running_args, running_unit

SCHEMA = {
    "file": Field("str", pattern=r"casemate-[a-z0-9_]+\.yaml", help="the drop-in that holds it"),
    "node": Field("str", choices=("server", "agent"), help="whose flag list counts; default: server"),
    "key": Field("str", pattern=r"[a-z0-9][a-z0-9-]+"),
    "value": Field("any", help="scalar or list; for an *-arg key one flag=value item, or a list of them"),
    "options": Field("dict", help="several keys at once"),
    "absent_key": Field("str", help="a key that must not be set anywhere"),
    "lint": Field("bool", help="every key must be known, and nothing may be set beside the files"),
    "enforced": Field("bool", help="false: observe only"),
}
ENFORCED_BY = "engine"
HEADER = "# Managed by Casemate. Settings of your own belong into the inventory (k3s_node_config).\n"


def identity(setting: Setting) -> str:
    """A key, or one flag of an *-arg key."""
    if setting.get("lint"):
        return "lint"
    if "options" in setting:
        return f"options:{setting.get('file', '')}"
    if "absent_key" in setting:
        return str(setting["absent_key"])
    value = setting.get("value")
    if setting["key"].endswith("-arg"):
        return f"{setting['key']}:{'*' + setting.get('file', '') if isinstance(value, list) else flag_of(value)[0]}"
    return str(setting["key"])


def declared(settings: List[Setting], version: str) -> Dict[str, Dict[str, Any]]:
    """File -> key -> value of everything that these settings declare; raises ValueError for what K3s cannot take."""
    files: Dict[str, Dict[str, Any]] = {}
    wrong: List[str] = []
    for setting in settings:
        if "file" not in setting or setting.get("enforced") is False:
            continue
        made = files.setdefault(setting["file"], {})
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
    return files


def wanted(setting: Setting) -> Dict[str, Any]:
    """Key -> value that one setting demands."""
    return dict(setting.get("options") or ({setting["key"]: setting.get("value")} if "key" in setting else {}))


def observe(settings: List[Setting], host: Host) -> List[Observation]:
    """The merged value of each demanded key, the running component's flags, and when the unit was started."""
    version = str(host.context.get("version", ""))
    files, config = declared(settings, version), merged(host)
    unit, started = running_unit(host)
    running = running_args(host) if any(k.endswith("-arg") for s in settings for k in wanted(s)) else {}
    seen: List[Observation] = []
    told: Set[str] = set()
    for setting in settings:
        name = setting.get("file", "")
        one: Observation = {"unit": unit, "started": started, "left": [], "keys": {}, "running": {}}
        if name and name not in told:
            told.add(name)
            mine = {k: v for k, (v, path, _) in config.items() if path == f"{FOLDER}/{name}"}
            one["left"] = _left(mine, files.get(name, {}))
        for key in [*wanted(setting), *filter(None, [setting.get("absent_key")])]:
            value, path, when = config.get(key, (None, "", 0.0))
            one["keys"][key] = {"value": "(secret)" if key in SECRETS else value, "file": path, "when": when}
            if key.endswith("-arg"):
                component = key[:-4]
                one["running"][key] = running.get(component) if component in COMPONENTS else None
        if setting.get("lint"):
            wrong = lint(config, setting.get("node", "server"), version)
            one["wrong"] = wrong + beside(host, unit or ("k3s" if setting.get("node") != "agent" else "k3s-agent"))
        seen.append(one)
    return seen


def _left(mine: Mapping[str, Value], made: Mapping[str, Any]) -> List[str]:
    """Keys and items of an owned file that nothing declares any more."""
    left = [key for key in mine if key not in made]
    for key in set(mine) & set(made):
        if key.endswith("-arg"):
            left += [f"{key}: {item}" for item in items(mine[key]) if item not in items(text_of(made[key]))]
    return sorted(left)


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right are the merged value and, where the journal shows it, the running one; else what runs is stale."""
    unit = (f"{seen['unit']}.service",) if seen["unit"] else ()
    if setting.get("lint"):
        wrong = seen["wrong"]
        return Verdict(
            not wrong, "only known keys, in files", "; ".join(wrong) or "only known keys, in files", "; ".join(wrong)
        )
    if "absent_key" in setting:
        where = seen["keys"][setting["absent_key"]]["file"]
        return Verdict(not where, "absent", f"set in {where}" if where else "absent", evidence=where or BASE)
    faults: List[str] = []
    stale = False
    for key, value in wanted(setting).items():
        at = seen["keys"][key]
        if key.endswith("-arg"):
            wrong, behind = _items(key, value, at["value"], seen["running"][key])
            timed = seen["running"][key] is None
        else:
            # A key that is neither demanded nor set is right: an empty list demands nothing.
            right = at["value"] == text_of(value) or (at["value"] is None and value == [])
            by = f" by {at['file']}" if at["file"] else ""
            wrong = [] if right else [f"{key} is {_shown(at['value'])}{by}"]
            behind, timed = False, True
        if not wrong and timed and seen["unit"] and at["when"] > seen["started"]:
            behind = True
            wrong = [f"{seen['unit']} was started before {at['file']} was changed"]
        faults += wrong
        stale = stale or behind  # only right values are worth a restart: a wrong one would come into force
    if seen["left"]:
        faults.append(f"{setting['file']} still holds {', '.join(seen['left'])}")
    files = sorted({at["file"] for at in seen["keys"].values() if at["file"]})
    observed = {key: _mine(key, value, seen["keys"][key]["value"]) for key, value in wanted(setting).items()}
    return Verdict(
        not faults, {k: text_of(v) for k, v in wanted(setting).items()}, observed, "; ".join(faults),
        ", ".join(files) or BASE, unit if stale else (),
    )  # fmt: skip


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)


def _mine(key: str, value: Any, have: Any) -> Any:
    """Of an *-arg list only the items about the demanded flags."""
    if not key.endswith("-arg"):
        return have
    flags = {flag_of(item)[0] for item in (value if isinstance(value, list) else [value])}
    return [item for item in items(have or "") if flag_of(item)[0] in flags]


def _items(key: str, value: Any, have: Any, running: Any) -> Tuple[List[str], bool]:
    """Faults of an *-arg key's items, and whether only the running component is behind."""
    faults, stale = [], False
    for item in value if isinstance(value, list) else [value]:
        flag, want = flag_of(item)
        given = [flag_of(i)[1] for i in items(have or "") if flag_of(i)[0] == flag]
        if given != [want]:
            faults.append(f"{key} gives {flag} as {', '.join(given) or 'nothing'}")
        elif running is not None and running.get(flag) != [want]:
            stale = True
            faults.append(f"the running {key[:-4]} has {flag} as {', '.join(running.get(flag, [])) or 'nothing'}")
    return faults, stale


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Write each owned drop-in that holds something failing; K3s itself is not restarted."""
    due = {settings[i]["file"] for i in failing if "file" in settings[i] and settings[i].get("enforced") is not False}
    files = declared(settings, str(host.context.get("version", "")))
    for name in sorted(due):
        text = HEADER + render(files[name])
        if dict(parse(text)) != {k: text_of(v) for k, v in files[name].items()}:
            raise EnforceError(f"{name} was not written: it would not be read back as it is meant")
        host.write(f"{FOLDER}/{name}", text.encode(), mode=0o600, owner=(0, 0))
