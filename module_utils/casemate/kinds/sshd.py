"""The SSH daemon's effective settings: `sshd -T` for every kind of connection that its configuration tells apart.

What counts is what a login meets: Match blocks, files read before ours, options on the daemon's command line (of the
running one and of the next start), and whether the running daemon has read its files since they changed. Enforced by
one drop-in that is read first, since in sshd_config(5) the first value wins. Files of others are named, never edited.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, List, TypedDict

from ..core.schema import Key, Scalar
from ..core.verdict import Observation, Unavailable, Verdict
from ..formats import sshd_daemon, sshd_keys
from ..formats.sshd_daemon import SOCKET, UNIT
from ..formats.sshd_files import (
    FOLDER,
    MAIN,
    OWNED,
    RUNNING,
    STDIN,
    Line,
    call,
    changed_since_read,
    connections,
    decider,
    directives,
    effective,
    main_file,
    normal,
    options,
    past_files,
    planned,
    unreported,
    unwritable,
)
from ..host.clock import stays_ahead
from ..host.machine import EnforceError, Host
from .kind import Enforceable, Kind, Owned, not_waived
from .sshd_dropin import NO_KEYWORDS, concerns, left, unasked, wanted, written


class Needed(TypedDict):
    """What every setting of this kind says."""

    key: Annotated[
        str,
        Key(
            "as sshd -T shows it; or daemon (value: current), or listener (value: plain)",
            pattern=r"(?!(match|include)$)[a-z0-9]+",
        ),
    ]
    value: Annotated[Scalar, Key("value as sshd -T shows it", pattern=r"[^\r\n]+")]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind may demand."""

    users: Annotated[List[str], Key("accounts for which another value holds")]
    users_value: Annotated[Scalar, Key("that value", pattern=r"[^\r\n]+")]
    users_only: Annotated[bool, Key("for everybody else nothing is demanded and nothing written")]


OURS = (OWNED, FOLDER)


def identity(setting: Setting) -> str:
    """One control per keyword."""
    return str(setting["key"])


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """Values by connection and command line, now and once our drop-in is written, and what the daemon has not read.

    `after` costs as many calls again, so it is asked for only where something fails; `refused` is sshd's complaint
    about the configuration that would be written. A fault that reaches every keyword is told by one control where that
    is judged: `daemon` tells what sshd cannot read, `listener` another file on its command line.
    """
    lines, whole, judged = directives(host), options(host), {s["key"] for s in not_waived(settings, waived)}
    users = [s["users"] for s in not_waived(settings, waived) if s.get("users")]
    given = {when: tuple(o for o in whole[when] if "listener" not in judged or o[0] != "-f") for when in whole}
    cases = [
        (label, met, spec, when, extra)
        for label, met, spec in connections(host, lines, users)
        for when, extra in given.items()
        if when == RUNNING or extra != given[RUNNING]
    ]
    broken = refused = ""
    try:
        now = [effective(host, extra, spec) for _, _, spec, _, extra in cases]
    except OSError as error:
        if "daemon" not in judged:
            raise
        now, broken = [{} for _ in cases], str(error)
    later, keywords = now, [s for s in settings if s["key"] not in NO_KEYWORDS]
    whom = [spec.get("user") or "" for _, _, spec, _, _ in cases]
    if broken or any(
        got.get(s["key"], "not set") != wanted(s, user)
        for got, user in zip(now, whom)
        for s in keywords
        if concerns(s, user)
    ):
        text = written(not_waived(settings, waived))
        config, refused = planned(host, text), unwritable(host, text)
        try:
            later = [
                got if "-f" in dict(extra) else effective(host, extra, spec, config)
                for got, (_, _, spec, _, extra) in zip(now, cases)
            ]
        except OSError as error:
            refused = refused or f"{OWNED} as it would be written: {error}"
    found: list[Observation] = []
    for setting in settings:
        key = setting["key"]
        values = [
            {
                "label": ", ".join(part for part in (label, when if given[when] else "") if part),
                "value": got.get(key, "not set"),
                "after": then.get(key, "not set"),
                "want": wanted(setting, spec.get("user") or "") if key not in NO_KEYWORDS else wanted(setting),
                "decider": decider(host, key, met, when, extra, lines),
            }
            for (label, met, spec, when, extra), got, then in zip(cases, now, later)
            if concerns(setting, spec.get("user") or "")
        ]
        files = dict.fromkeys(line.path for line in lines if line.key == key and line.path != OWNED)
        found.append({"values": values, "others": list(files), "refused": refused, "broken": broken})
    failing = [s for n, (s, one) in enumerate(zip(settings, found)) if n not in waived and wrong(s, one)]
    unread = sorted(unexplained(changed_since_read(host, lines), failing, lines))
    for setting, one in zip(settings, found):
        if setting["key"] == "hostkey":
            one.update(sshd_keys.state(host, wanted(setting).split()))
        elif setting["key"] == "daemon":
            one.update(sshd_daemon.state(host, unread, OURS))
        elif setting["key"] == "listener":
            keys = {failed["key"] for failed in failing}
            one.update(values=[], others=past_files(host, lines) + ([] if broken else unreported(host, whole, keys)))
    return found


def wrong(setting: Setting, seen: Observation) -> list[dict[str, str]]:
    """The kinds of connection that do not meet the value that holds for them."""
    return [case for case in seen["values"] if case["value"] != case.get("want", wanted(setting))]


def unexplained(unread: set[str], failing: list[Setting], lines: list[Line]) -> set[str]:
    """What the daemon has not read, less what a failing keyword tells: a file with a wrong value, ours without one.

    A value that is right for some users is wrong outside of a block, and one that is right for the rest within one.
    """
    explained: set[str] = set()
    for setting in failing:
        if setting["key"] not in NO_KEYWORDS:
            own = [line for line in lines if line.key == setting["key"]]
            of_users = {wanted(setting, user) for user in setting.get("users", ())}
            general = of_users if setting.get("users_only") else {wanted(setting)}
            files = {
                line.path
                for line in own
                if normal(line.key, [line.value]) not in (of_users if line.match and of_users else general)
            }
            explained |= unread & (files | ({OWNED, FOLDER} if all(line.path != OWNED for line in own) else set()))
    return unread - explained - {path.rpartition("/")[0] for path in explained}


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Every kind of connection must meet the value.

    `daemon` is whether sshd can read its files, and the running one has; `listener` whether only they decide.
    """
    want, cases, refused = wanted(setting), seen["values"], seen["refused"]
    evidence = f"sshd -T ({len(cases)} kinds of connection)"
    if setting["key"] == "listener":
        past = "; ".join(seen["others"])
        reason = f"{past}; only {MAIN} and what it includes may decide: remove it there" if past else ""
        return Verdict(
            ok=not past,
            expected=want,
            observed=past or want,
            reason=reason,
            evidence=f"/proc, systemctl show {UNIT}",
            blocked_by=past,
        )
    if seen["broken"] and setting["key"] == "daemon":
        return Verdict(
            ok=False, expected=want, observed="unreadable", reason=seen["broken"], evidence=evidence, blocked_by=refused
        )
    if seen["broken"]:
        raise Unavailable("sshd", "sshd cannot read its configuration, which the control of the daemon tells")
    bad = wrong(setting, seen)
    if seen.get("keys") and not bad:
        return Verdict(
            ok=False,
            expected=want,
            observed="no such key",
            reason=seen["keys"],
            evidence=evidence,
            blocked_by=seen["stuck"],
        )
    if not bad:
        return Verdict(ok=True, expected=want, observed=want, evidence=evidence)
    if setting["key"] == "daemon":
        return sshd_daemon.verdict(want, bad[0]["value"], seen)
    barred = [case for case in bad if case["after"] != case.get("want", want)]
    case = (barred or bad)[0]
    want = case.get("want", want)
    blocked_by = refused or (case["decider"] if barred else "")
    reason = f"{case['label'] or 'logins'}: {case['value']}"
    if refused:
        reason += f"; {refused}"
    elif barred:
        reason += f"; decided by {blocked_by}: remove it there"
    elif seen["others"]:
        reason += f"; also set in {', '.join(seen['others'])}"
    still_enforced = not refused and any(case["value"] != case["after"] for case in cases)
    return Verdict(
        ok=False,
        expected=want,
        observed=case["value"],
        reason=reason,
        evidence=evidence,
        blocked_by=blocked_by,
        still_enforced=still_enforced,
        where=tuple(dict.fromkeys(case["decider"] for case in bad if case["decider"])),
    )


def enforce(settings: list[Setting], failing: set[int], host: Host) -> None:
    """Write the drop-in and, where it lacks, the Include that reads it first; validate the whole; reload."""
    text, whole = written(settings), main_file(host)
    declared = [s for s in settings if s["key"] == "hostkey" and s.get("enforced") is not False]
    keys = sshd_keys.to_make(host, [path for s in declared for path in wanted(s).split()])
    unread = changed_since_read(host, directives(host))
    if host.text(OWNED) == text and host.text(MAIN) == whole and not (unread or keys):
        return
    host.arm([MAIN, OWNED])
    checked, _ = call(host, ["-t", *STDIN], planned(host, text))
    if checked.rc != 0:
        raise EnforceError(f"{OWNED} was not written: sshd -t refused it: {(checked.err or checked.out).strip()[:400]}")
    for key in keys:  # no guard takes one back: clients have to be told of it, and another next time would help nobody
        sshd_keys.give(host, key)
    host.write(OWNED, text.encode("utf-8", "surrogateescape"), mode=0o600, owner=(0, 0))
    host.write(MAIN, whole.encode("utf-8", "surrogateescape"))
    for path in OURS:
        if path in unread and stays_ahead(host.stat(path)):
            host.touch(path)
    sshd_daemon.reread(host)


def take_back(waived: list[Setting], wanted: list[Setting], host: Host) -> None:
    """Write the drop-in without them."""
    enforce(wanted, set(), host)


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    units=lambda setting: (UNIT, SOCKET),
    places=lambda setting: [OWNED],
    owned=Owned(left, take_back, unasked, written=lambda setting: OWNED),
)
