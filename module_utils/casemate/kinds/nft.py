"""The firewall that is loaded: one own table, judged rule by rule, and as a whole against its declaration.

Who reaches a port is computed from the live rules in order. Whether anything was added or removed is told by loading
the declared rules in an empty network namespace and comparing the two listings. A change is told once: what a failing
control of a policy or of ports tells does not count against the whole as well.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from ..core.diff import Pair, of_texts, of_values
from ..core.schema import Key
from ..core.verdict import Left, Observation, Verdict
from ..formats.nft_rules import FLAGS, Thing, differences, flagged, judged, judges, listed
from ..host.machine import EnforceError, Host
from ..host.text import show
from .kind import Enforceable, Kind, Owned, Pass, not_waived
from .owned_entries import in_file


class Setting(Enforceable, total=False):
    """What a control of this kind may demand."""

    ruleset: Annotated[str, Key("the whole declared file: it is written, loaded, and compared with what is live")]
    chain: Annotated[str, Key("base chain to judge", pattern=r"[a-z_]+")]
    policy: Annotated[Literal["accept", "drop"], Key("what the chain does with the rest")]
    proto: Annotated[Literal["tcp", "udp"], Key("with sources: who reaches these ports by it")]
    ports: Annotated[list[Any], Key("with sources: ports; empty for any port that no rule names")]
    gate: Annotated[bool, Key("what stands behind the firewall is not installed while this fails")]
    sources: Annotated[list[str], Key("exactly these networks may open connections")]


FILE, UNIT = "/etc/casemate/firewall.nft", "casemate-firewall.service"
TABLE = "table inet casemate"
LIST = f"list {TABLE}"
SCRATCH = ("unshare", "--net", "sh", "-c", f"nft -f - && nft -j {LIST}")  # constants only: no value meets a shell
RELOAD = ("systemctl", "reload-or-restart", UNIT)
UNLOADED = "the control that declares the rules is not here or waived, so nothing loads them"


def identity(setting: Setting) -> str:
    """The declaration as a whole, the policy of a chain, or the sources of ports."""
    if "ruleset" in setting:
        return "ruleset"
    what = "policy" if "policy" in setting else f"{setting.get('proto')}:{setting.get('ports')}"
    return f"{setting.get('chain')}:{what}"


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """The live table, and what the declared one looks like when it is loaded where nothing else is.

    With them the controls that judge a part of the table, and what keeps apply from loading it.
    """
    shown = host.run(["nft", "-j", *LIST.split()])
    live = _live(host, shown.out) if shown.rc == 0 else None
    whole = next((s for s in settings if "ruleset" in s), None)
    declared = None
    if whole and shown.rc != 127:
        scratch = host.run(SCRATCH, stdin=whole["ruleset"])
        if scratch.rc != 0:
            raise OSError(f"the declared rules do not load: {(scratch.err or scratch.out).strip()[:300]}")
        declared = listed(scratch.out)
    parts = [s for s in not_waived(settings, waived) if "chain" in s]
    policies = {s["chain"]: s["policy"] for s in parts if "policy" in s}
    goes = any("ruleset" in settings[index] for index in waived)
    bars = host.barred(FILE) if whole and host.text(FILE) != whole["ruleset"] else ""
    seen: Observation = {
        "live": live, "declared": declared, "file": host.text(FILE), "policies": policies,
        "stuck": bars if whole and not goes else UNLOADED,
        "specific": judges(parts, live or [], policies), "barred": bars, "goes": goes,
    }  # fmt: skip
    return [seen for _ in settings]


def _live(host: Host, shown: str) -> list[Thing]:
    """The live table with its flags. In the JSON of nft 1.0.6 they are another word, or all breaks off at them."""
    text = host.run(["nft", *LIST.split()])
    done, things = text, None
    if text.rc == 0:
        try:
            things = listed(shown)
        except ValueError:
            done = host.run(SCRATCH, stdin=FLAGS.sub("", text.out))
    if done.rc != 0:
        raise OSError(f"the live rules cannot be listed: {(done.err or done.out).strip()[:300]}")
    return [*flagged(text.out), *(listed(done.out) if things is None else things)]


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Compare the whole, a policy, or the networks that reach each port."""
    live, declared, evidence = seen["live"], seen["declared"], f"nft -j {LIST}"
    if "ruleset" in setting:
        bars = seen["barred"]
        if live is None:
            reason = "; ".join(filter(None, ["the table is not loaded", bars]))
            return Verdict(
                ok=False,
                expected=f"the {TABLE}",
                observed="no such table",
                reason=reason,
                evidence=evidence,
                blocked_by=bars,
            )
        reason = differences(live, declared, seen["specific"])
        if seen["file"] != setting["ruleset"]:
            reason = "; ".join(part for part in (f"{FILE} differs, so the next boot would", reason, bars) if part)
        shown = "different" if reason else "as declared"
        return Verdict(
            ok=not reason, expected="as declared", observed=shown, reason=reason, evidence=evidence, blocked_by=bars
        )
    policy, blocked_by = seen["policies"].get(setting["chain"]), seen["stuck"]
    want, have, reason = (f"the {TABLE}", "no such table", "the table is not loaded")
    if live is not None:
        want, have, reason = judged(setting, live, policy)
    right = want == have
    if declared is not None and not blocked_by:  # what apply loads; a hole that it would open counts already
        demanded, then, fault = judged(setting, declared, policy)
        if demanded != then:
            right, blocked_by = False, f"the declared rules admit it, see k3s_firewall_allow: {fault or then}"
    if right and not seen["goes"]:  # apply takes back what nothing declares, and a hole that opens counts already
        return Verdict(ok=True, expected=want, observed=have, evidence=evidence)
    reason = "; ".join(part for part in (reason, blocked_by) if part)
    return Verdict(
        ok=False,
        expected=want,
        observed=have,
        reason=reason,
        evidence=evidence,
        blocked_by=blocked_by,
        still_enforced=not seen["stuck"] and live != declared,
    )


def enforce(settings: list[Setting], failing: set[int], host: Host) -> None:
    """Write the declared file and load it in one transaction, under the guard. No other table is touched."""
    ruleset = next((s["ruleset"] for s in settings if "ruleset" in s), None)
    if ruleset is None:
        raise EnforceError(UNLOADED)
    host.arm([FILE])
    host.write(FILE, ruleset.encode(), mode=0o600, owner=(0, 0), validate=("nft", "-c", "-f", "%s"))
    host.must_run(RELOAD)
    host.changed(UNIT, "other rules\n", "reloaded\n")


def difference(setting: Setting, have: Any, want: Any, host: Host) -> list[Pair]:
    """The declared file as a text, and the values."""
    text = [of_texts(show(host.read(FILE)), setting["ruleset"])] if "ruleset" in setting else []
    return [*text, of_values(have, want)]


def left(setting: Setting, run: Pass, host: Host) -> Left:
    """The table as a whole, and the file that the next boot loads; a part of it has nothing of its own."""
    if "ruleset" not in setting:
        return Left()
    loaded = host.run(["nft", *LIST.split()]).rc == 0
    there = [FILE] * (host.stat(FILE) is not None) + [f"the {TABLE}"] * loaded
    return in_file(FILE, " and ".join(there), host)


def take_back(waived: list[Setting], wanted: list[Setting], host: Host) -> None:
    """Remove file and table under the guard; nobody else's table is touched."""
    host.arm([FILE])
    host.remove(FILE)
    if host.run(["nft", *LIST.split()]).rc == 0:
        done = host.run(["nft", *LIST.replace("list", "delete", 1).split()])
        if done.rc != 0:
            raise EnforceError(f"the table inet casemate could not be deleted: {(done.err or done.out).strip()[:300]}")
        host.changed(f"nft {TABLE}", "loaded\n", "")


OURS: Owned[Setting] = Owned(left, take_back, written=lambda setting: FILE)
KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    difference=difference,
    places=lambda setting: [TABLE],
    owned=OURS,
)
