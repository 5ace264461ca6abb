"""K3s' own configuration: merged as K3s merges it, linted against its flag list, compared with what runs.

`*-arg` keys hold one item for each flag of a component; each item is a control of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, List, Literal, Set

from ..core.schema import Key
from ..core.verdict import Left, Observation, Unavailable, Verdict
from ..host.machine import Host
from ..k3s import declared as k3s_declared
from ..k3s import dropins as k3s_dropins
from ..k3s import files as k3s_files
from ..k3s import resolvers
from ..k3s import values as k3s_values
from ..k3s.declared import declared
from ..k3s.files import BASE, FOLDER, Source, flag_of, text_of, value_of
from ..k3s.flags import SECRETS
from ..k3s.services import UNITS, running_unit
from ..k3s.values import wanted
from .journal_args import running_args
from .kind import Enforceable, Kind, Owned, Pass, not_waived


class Setting(Enforceable, total=False):
    """What a control of this kind may demand."""

    file: Annotated[str, Key("the drop-in that holds it", pattern=r"casemate-[a-z0-9_]+\.yaml")]
    node: Annotated[Literal["server", "agent"], Key("whose flag list counts; default: server")]
    key: Annotated[str, Key("a key of K3s' configuration", pattern=r"[a-z0-9][a-z0-9-]+")]
    value: Annotated[Any, Key("scalar or list; for an *-arg key one flag=value item, or a list of them")]
    resolvers: Annotated[list[str], Key("instead of value: files, of which the first that pods can use is the value")]
    options: Annotated[dict[str, Any], Key("several keys at once")]
    absent_key: Annotated[str, Key("a key that must not be set anywhere")]
    lint: Annotated[bool, Key("every key must be known, and nothing may be set beside the files")]
    current: Annotated[bool, Key("K3s has been started since its files last changed")]
    sensitive: Annotated[list[str], Key("keys whose values are never shown, whichever control is about them")]
    gate: Annotated[bool, Key("K3s is not started while this fails")]


def identity(setting: Setting) -> str:
    """A key, or one flag of an *-arg key."""
    if setting.get("lint") or setting.get("current"):
        return "lint" if setting.get("lint") else "current"
    if "options" in setting:
        return f"options:{setting.get('file', '')}"
    if "absent_key" in setting:
        return str(setting["absent_key"])
    value = setting.get("value")
    if setting["key"].endswith("-arg"):
        return f"{setting['key']}:{'*' + setting.get('file', '') if isinstance(value, list) else flag_of(value)[0]}"
    return str(setting["key"])


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """The merged value of each demanded key, now and once our drop-ins are written; what runs, and since when.

    A file that K3s has not read since it changed counts against the value in it that is wrong, if one is.
    """
    version, settings = str(host.context.get("version", "")), resolvers.chosen(settings, host)
    files = declared(settings, version)
    plan = k3s_files.kept(declared(not_waived(settings, waived), version), host)
    found = k3s_files.sources(host)
    future = k3s_files.planned(found, plan)
    now, then = k3s_files.merged(found), k3s_files.merged(future)
    mine = {one.path: one for one in found}
    unit, started = running_unit(host)
    running = running_args(host) if any(k.endswith("-arg") for s in settings for k in wanted(s)) else {}
    secret = SECRETS.union(*(setting.get("sensitive") or () for setting in settings))
    seen: List[Observation] = []
    reported: Set[str] = set()
    for setting in settings:
        name, node = setting.get("file", ""), setting.get("node", "server")
        own = mine.get(f"{FOLDER}/{name}", Source("", 0.0, []))
        one: Observation = {"unit": unit, "started": started, "left": "", "keys": {}, "running": {}, "secret": secret}
        one["value"] = setting.get("value")
        one["broken"] = [source.fault for source in future if source.fault]
        one["barred"] = k3s_dropins.unwritable(host, name, plan)
        if name and name not in reported:
            reported.add(name)
            left = k3s_values.left_over(dict(own.entries), files.get(name, {}))
            one["left"] = own.fault or (f"{name} still holds {', '.join(left)}" if left else "")
        for key, value in [*wanted(setting).items(), *((k, None) for k in [setting.get("absent_key")] if k)]:
            parts, after = now.get(key, []), then.get(key, [])
            one["keys"][key] = {
                "file": ", ".join(part.path for part in parts),
                "secret": key in secret,
                "value": k3s_values.veil(key, value_of(parts), secret),
                "after": k3s_values.veil(key, value_of(after), secret),
                "hidden": [each.fault for each in k3s_files.hiding(found, key)],
                "barred": [each.path for each in k3s_files.hiding(future, key)],
                "others": k3s_values.others(key, value, after, [f"{FOLDER}/{name}" for name in plan]),
                "own": dict(own.entries).get(key) == text_of(plan.get(name, {}).get(key)),
            }
            if key.endswith("-arg"):
                one["running"][key] = k3s_values.veil_flags(key, running.get(key[:-4]), secret)
        if setting.get("lint"):
            past = k3s_files.beside(host, unit or ("k3s" if node != "agent" else "k3s-agent"))
            one["wrong"], one["after"] = (k3s_files.faults(each, node, version) + past for each in (found, future))
        seen.append(one)
    late = k3s_files.unread(host, found, started) if unit else []
    unwaived = not_waived(list(zip(settings, seen)), waived)
    judged = [(setting, assess(setting, one)) for setting, one in unwaived if not setting.get("current")]
    wrong = [(v, v.blocked_by or f"{v.evidence} {FOLDER}/{s.get('file')}") for s, v in judged if not v.ok]
    late = [path for path in late if not any(path in where for _, where in wrong)]
    stuck = k3s_dropins.stuck(host, late, plan)
    for one in seen:
        one["late"], one["stuck"] = [host.dated(path) for path in late], stuck
        one["restart"] = all(v.stale for v, _ in wrong)  # a wrong value would come into force
    return seen


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right are the merged value and, where the journal shows it, the running one; else what runs is stale."""
    if setting.get("lint"):
        good, said, after = "only known keys, in files", "; ".join(seen["wrong"]), "; ".join(seen["after"])
        return Verdict(ok=not said, expected=good, observed=said or good, reason=said, blocked_by=after)
    if setting.get("current"):
        if not seen["unit"]:
            raise Unavailable("k3s", "K3s does not run here, so nothing runs with older settings")
        late, broken, stuck = (", ".join(seen[what]) for what in ("late", "broken", "stuck"))
        reason = f"{seen['unit']} was started before {late} changed" if late else ""
        reason += f"; it would not start again: {broken}" if late and broken else ""
        reason += f"; so that it counts as read again: touch {' '.join(seen['stuck'])}" if stuck else ""
        restart = len(seen["late"]) > len(seen["stuck"]) and seen["restart"] and not broken
        unit = (f"{seen['unit']}.service",) if restart else ()
        evidence = f"systemctl show {seen['unit']}"
        return Verdict(
            ok=not late,
            expected="read",
            observed=late or "read",
            where=(*seen["late"], f"{seen['unit']}.service"),
            reason=reason,
            evidence=evidence,
            stale=unit,
            blocked_by=broken or stuck,
            still_enforced=restart,
        )
    if "absent_key" in setting:
        at = seen["keys"][setting["absent_key"]]
        where = "; ".join(filter(None, [at["file"], *at["hidden"]]))
        return Verdict(
            ok=not where,
            expected="absent",
            observed=f"set in {where}" if where else "absent",
            evidence=where or BASE,
            where=(at["file"],) if at["file"] else (),
            reason=f"{setting['absent_key']} is set in {where}; remove it there" if where else "",
            blocked_by=", ".join([*at["others"], *at["barred"]]),
        )
    if "resolvers" in setting:
        setting = {**setting, "value": seen["value"]}
    wrongs: List[str] = []
    blocked_by: List[str] = []
    places: List[str] = []
    stale = False
    demanded = {key: k3s_values.veil(key, text_of(value), seen["secret"]) for key, value in wanted(setting).items()}
    for key, value in demanded.items():
        at = seen["keys"][key]
        wrong = [f"{key} cannot be told: {fault}" for fault in at["hidden"]] or k3s_values.wrong(key, value, at)
        if wrong and (at["barred"] or k3s_values.wrong(key, value, {**at, "value": at["after"]})):
            there = at["barred"] or at["others"]
            places, blocked_by = [*places, *there], [*blocked_by, *(there or [f"no file of ours for {key}"])]
        if not wrong:  # only right values are worth a restart: a wrong one would come into force
            wrong = k3s_values.behind(key, value, seen["running"].get(key))
            stale = stale or bool(wrong)
        wrongs += wrong
    wrongs += filter(None, [seen["left"]])
    if places:
        wrongs.append(f"remove it from {', '.join(dict.fromkeys(places))}")
    if wrongs and seen["barred"]:
        blocked_by, wrongs = [*blocked_by, seen["barred"]], [*wrongs, seen["barred"]]
    if wrongs and seen["unit"] and seen["broken"]:
        blocked_by, stale = [*blocked_by, *seen["broken"]], False
        wrongs.append(f"K3s would not start again: {', '.join(seen['broken'])}")
    return Verdict(
        ok=not wrongs,
        expected=demanded,
        observed={key: k3s_values.concerned(key, value, seen["keys"][key]["value"]) for key, value in demanded.items()},
        reason="; ".join(wrongs),
        evidence=", ".join(sorted({at["file"] for at in seen["keys"].values() if at["file"]})) or BASE,
        stale=(f"{seen['unit']}.service",) if stale and seen["unit"] else (),
        where=tuple(dict.fromkeys(places or sorted(at["file"] for at in seen["keys"].values() if at["file"]))),
        blocked_by=", ".join(dict.fromkeys(blocked_by)),
        still_enforced=bool(
            stale or (not seen["barred"] and (seen["left"] or not all(at["own"] for at in seen["keys"].values())))
        ),
        unwritable=seen["barred"] if wrongs else "",
    )


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Write each owned drop-in that holds something failing; K3s itself is not restarted."""
    rewritten = {
        settings[i]["file"] for i in failing if "file" in settings[i] and settings[i].get("enforced") is not False
    }
    files = k3s_files.kept(declared(resolvers.chosen(settings, host), str(host.context.get("version", ""))), host)
    if any(settings[i].get("current") for i in failing):
        k3s_dropins.bring_back(host, files)
    for name in sorted(rewritten):
        secret = any(setting.get("sensitive") for setting in settings if setting.get("file") == name)
        k3s_dropins.write(host, name, files[name], secret)


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """Keys and flags in the owned drop-in that no other setting declares."""
    return k3s_declared.left(setting, run.wanted, host)


OURS: Owned[Setting] = Owned(left, k3s_declared.take_back, lasting=k3s_declared.lasting, written=k3s_declared.written)
KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    places=lambda setting: [f"{FOLDER}/{setting['file']}" if "file" in setting else BASE],
    units=lambda setting: UNITS,
    owned=OURS,
)
