"""Which bytes run as K3s: installed file, running process, unpacked tree, version; who signed the lock, and until when.

`k3s` is a wrapper that unpacks itself to /var/lib/rancher/k3s/data/<digest of its archive>/ and runs from there.
An intruder can edit a file there and its `.sha256sums` alike, so the tree is compared with a fresh one that the
verified wrapper unpacks into a private mount.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Collection
from typing import Annotated, Any, Dict, List, Literal, TypedDict

from ..core import waiver
from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..host.machine import Host
from ..host.signature import SignatureError, signers
from ..k3s import lock_validity
from ..k3s.artifact import at_least, digest_of, mapped, stated_version
from ..k3s.services import UNITS, running_unit
from .kind import Enforceable, Kind, Owned, each


class Needed(TypedDict):
    """What every setting of this kind says."""

    aspect: Annotated[Literal["file", "running", "unpacked", "version", "signature", "validity"], Key("what is judged")]


class Setting(Needed, Enforceable, total=False):
    """What a control of this kind may demand."""

    path: Annotated[str, Key("the installed file; default: /usr/local/bin/k3s", pattern=r"/\S+")]
    digests: Annotated[dict[str, str], Key("machine type (x86_64, aarch64) -> sha256 that the lock names")]
    version: Annotated[str, Key("the release of the lock; what is there and newer is not replaced by it")]
    downgrade: Annotated[bool, Key("it is replaced all the same")]
    optional: Annotated[bool, Key("without a digest for this machine the file is not demanded")]
    floor: Annotated[str, Key("the lowest acceptable version")]
    lock: Annotated[str, Key("path of the lock on the controller")]
    allowed_signers: Annotated[str, Key("path of the operator's allowed_signers on the controller")]
    threshold: Annotated[int, Key("how many of them have to sign")]
    revoked: Annotated[str, Key("path of the keys on the controller that may sign no more; empty for none")]
    issued: Annotated[str, Key("the day of the lock, as YYYY-MM-DD; empty where it names none")]
    expires: Annotated[str, Key("its last day; empty where it has none")]


WRAPPER = "/usr/local/bin/k3s"
DATA = "/var/lib/rancher/k3s/data"
NO_DOWNGRADE = (
    "and an older one would not replace it: restore a snapshot, or set k3s_node_allow_downgrade; "
    "if it is not the K3s that you installed, remove it"
)
UNPACK = 'mount --bind "$1" "$2" && exec "$3" ctr --version'


def places_of(setting: Setting) -> list[str]:
    """The file that is judged, or the folder that it was unpacked to."""
    if setting["aspect"] in ("signature", "validity"):
        return [setting["lock"]]
    return [DATA if setting["aspect"] == "unpacked" else setting.get("path", WRAPPER)]


def identity(setting: Setting) -> str:
    """One control for each aspect of a path."""
    return f"{setting['aspect']}:{setting.get('path', WRAPPER)}"


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """Each aspect by itself; what cannot be had is returned as the reason why not."""
    return each(settings, lambda setting: _LOOK[setting["aspect"]](setting, host))


def _file(setting: Setting, host: Host) -> Observation:
    path, machine = host.path(setting.get("path", WRAPPER)), os.uname().machine
    digest = host.cached(f"digest:{path}", lambda: digest_of(path))
    other = bool(digest) and "version" in setting and digest != _digest(setting, machine)
    return {
        "digest": digest,
        "machine": machine,
        "directory": os.path.isdir(path) and not os.path.islink(path),
        "stated": stated_version(path) if other else "",
    }


def _running(setting: Setting, host: Host) -> Observation:
    """The executable of the main process, whether its name still leads to it, and whether the wrapper holds it."""
    unit, _ = running_unit(host)
    if not unit:
        raise Unavailable("k3s", "K3s does not run here")
    exe = f"/proc/{host.systemctl(unit + '.service', 'MainPID')['MainPID']}/exe"
    try:
        link = os.readlink(host.path(exe))
    except FileNotFoundError:
        raise Unavailable("k3s", f"the process of {unit} has just ended") from None
    if host.root != "/" and link.startswith(host.root):
        link = link[len(host.root.rstrip("/")) :]
    here = host.stat(link)
    real = os.stat(host.path(exe)) if here else None
    same = here is not None and real is not None and (here.st_dev, here.st_ino) == (real.st_dev, real.st_ino)
    match = re.fullmatch(rf"{DATA}/([0-9a-f]{{64}})/bin/k3s", link)
    return {"unit": unit, "exe": link, "same": same, "held": match is not None and _holds(host.path(WRAPPER), match[1])}


def _holds(wrapper: str, name: str) -> bool:
    """Whether the wrapper embeds the archive of this name (which is its SHA-256)."""
    with mapped(wrapper) as held:
        return held.find(name.encode() + b".tar") >= 0


def _unpacked(setting: Setting, host: Host) -> Observation:
    if digest_of(host.path(WRAPPER)) != _digest(setting):
        raise Unavailable("k3s", f"{WRAPPER} is not the locked one, so it cannot vouch for what was unpacked")
    if host.stat(DATA) is None:
        raise Unavailable("k3s", f"{DATA} does not exist: K3s has not run here")
    scratch = tempfile.mkdtemp(prefix=".casemate-", dir=host.path(os.path.dirname(DATA)))
    try:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", UNPACK, "sh", scratch, DATA, WRAPPER]
        done = host.run(command, timeout=120)
        fresh = {d: tree(f"{scratch}/{d}") for d in os.listdir(scratch) if re.fullmatch("[0-9a-f]{64}", d)}
        if done.rc != 0 or len(fresh) != 1:
            raise OSError(f"the wrapper did not unpack itself: {(done.err or done.out).strip()[-200:]}")
        name, want = fresh.popitem()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    have = tree(host.path(f"{DATA}/{name}"))
    return {"tree": name, "wrong": sorted(p for p in {*want, *have} if want.get(p) != have.get(p)), "files": len(want)}


def tree(folder: str) -> Dict[str, str]:
    """Relative path -> digest of a file, or the target of a link, for all below a folder."""
    found: Dict[str, str] = {}
    for parent, folders, files in os.walk(folder):
        for name in [*files, *folders]:
            path = os.path.join(parent, name)
            short = os.path.relpath(path, folder)
            if os.path.islink(path):
                found[short] = "-> " + os.readlink(path)
            elif os.path.isfile(path):
                found[short] = f"{digest_of(path)} {os.stat(path).st_mode & 0o7022:o}"
            elif not os.path.isdir(path):
                found[short] = "special"
    return found


def _version(setting: Setting, host: Host) -> Observation:
    """The release that the lock names for these bytes, else what foreign bytes say of themselves; nothing is run."""
    seen = _file(setting, host)
    if not seen["digest"]:
        raise Unavailable("k3s", f"there is no {WRAPPER}")
    if seen["digest"] == _digest(setting, seen["machine"]):
        return {"version": str(host.context.get("version", "")), "locked": True}
    stated = stated_version(host.path(WRAPPER))
    if not stated:
        raise Unavailable("k3s", f"{WRAPPER} is not the locked one and names no version")
    return {"version": stated, "locked": False}


def _signature(setting: Setting, host: Host) -> Observation:
    given = (setting.get("lock", ""), setting.get("allowed_signers", ""))
    try:
        return {"signers": signers(host.run, *given, setting.get("threshold", 1), setting.get("revoked", ""))}
    except SignatureError as refusal:
        return {"signers": [], "why": str(refusal)}


def _validity(setting: Setting, host: Host) -> Observation:
    return {"why": lock_validity.over(setting["issued"], setting["expires"], waiver.day(host.context))}


_LOOK = {
    "file": _file,
    "running": _running,
    "unpacked": _unpacked,
    "version": _version,
    "signature": _signature,
    "validity": _validity,
}


def _digest(setting: Setting, machine: str = "") -> str:
    return str((setting.get("digests") or {}).get(machine or os.uname().machine) or "")


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Compare one aspect; a process that does not run from the installed wrapper makes its unit stale."""
    aspect, path = setting["aspect"], setting.get("path", WRAPPER)
    if aspect == "file":
        want, have = _digest(setting, seen["machine"]), seen["digest"]
        if not want:
            reason = f"the lock has no digest for {seen['machine']}"
            return Verdict(
                ok=bool(setting.get("optional")), expected="a locked digest", observed=have or "absent", reason=reason
            )
        reason = "" if have == want else "it is missing" if not have else "its bytes are not those of the lock"
        blocked_by = ""
        if seen["directory"]:
            reason, blocked_by = "a directory is in its place: remove it", path
        elif seen["stated"] and not setting.get("downgrade") and not at_least(setting["version"], seen["stated"]):
            reason, blocked_by = f"it calls itself {seen['stated']}, {NO_DOWNGRADE}", path
        return Verdict(
            ok=have == want,
            expected=want,
            observed=have or "absent",
            reason=reason,
            evidence=f"sha256 of {path}",
            blocked_by=blocked_by,
        )
    if aspect == "running":
        ok = seen["same"] and seen["held"]
        reason = "" if ok else "the process runs something else than the installed wrapper unpacks"
        return Verdict(
            ok=ok,
            expected=f"{DATA}/<archive of {path}>/bin/k3s",
            observed=seen["exe"],
            reason=reason,
            evidence="/proc/MainPID/exe",
            stale=() if ok else (f"{seen['unit']}.service",),
        )
    if aspect == "unpacked":
        wrong, right = seen["wrong"], f"{seen['files']} files as in the wrapper"
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        reason = "not what the wrapper holds: remove the folder and restart K3s, which unpacks anew" if wrong else ""
        return Verdict(
            ok=not wrong,
            expected=right,
            observed=f"changed: {shown}" if wrong else right,
            reason=reason,
            evidence=f"{DATA}/{seen['tree']}",
            where=tuple(f"{DATA}/{seen['tree']}/{path}" for path in wrong),
        )
    if aspect == "version":
        ok = at_least(seen["version"], setting["floor"])
        if ok and not seen["locked"]:
            doubt = f"{path} is not the locked one, so that it calls itself {seen['version']} proves nothing"
            raise Unavailable("k3s", doubt)
        reason = "" if ok else "it lacks security fixes that the floor has"
        return Verdict(
            ok=ok,
            expected=f">= {setting['floor']}",
            observed=seen["version"],
            reason=reason,
            evidence=f"the release of {path}",
        )
    if aspect == "validity":
        return Verdict(
            ok=not seen["why"],
            expected="a lock that holds today",
            observed=f"until {setting['expires']}" if setting["expires"] else "without an end",
            reason=seen["why"],
            evidence=setting["lock"],
        )
    needed = setting.get("threshold", 1)
    return Verdict(
        ok=bool(seen["signers"]),
        expected="an allowed signer" if needed == 1 else f"{needed} allowed signers",
        observed=", ".join(seen["signers"]) or ("nobody" if needed == 1 else "too few"),
        reason=seen.get("why", ""),
        evidence=setting["lock"],
    )


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="task",
    places=places_of,
    units=lambda setting: UNITS if setting["aspect"] == "running" else (),
    owned=Owned(written=lambda setting: setting.get("path", WRAPPER) if setting["aspect"] == "file" else ""),
)
