"""What privileged programs trust that is more or less than a file of its own, and for which nobody vouches.

An entry of a cache or a bundle, a link, or a copy of a secret that lies outside its place. Nothing is deleted.
"""

from __future__ import annotations

import hashlib
import pwd
import shlex
import stat as statmod
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Dict, List, Literal, TypedDict

from ..core import vouched_for, waiver
from ..core.schema import Key
from ..core.verdict import Observation, Verdict
from ..core.vouched_for import Stranger
from ..formats import authorities, ld_cache
from ..host.entries import name_of
from ..host.machine import Host
from ..k3s import authorities as cluster_authorities
from ..k3s import credentials, plugins
from ..k3s.services import UNITS
from .kind import Kind
from .vouchers import content


class Needed(TypedDict):
    """What every setting of this kind says."""

    of: Annotated[
        Literal["authorities", "cluster_authorities", "credentials", "libraries", "plugins"],
        Key("what is looked through"),
    ]
    used: Annotated[str, Key("what is done with it")]
    paths: Annotated[List[str], Key("where it is; for credentials patterns of files that may hold copies")]
    declared: Annotated[Dict[str, Any], Key("name to what the operator vouches for: digest, owner, reason, expires")]


class Setting(Needed, total=False):
    """What a control of this kind demands."""

    skipped: Annotated[List[str], Key("folders that copies of credentials belong in")]


def identity(setting: Setting) -> str:
    """One control for a set of places."""
    return f"{setting['of']}:{setting['paths'][0]}"


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Observation]:
    """For each setting: for what nobody vouches, why, and what it is."""
    day = waiver.day(host.context)
    return [vouched_for.unvouched(_LOOK[one["of"]](one, host), one["declared"], day) for one in settings]


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that somebody vouches for everything."""
    return vouched_for.verdict(setting, seen, ", ".join(setting["paths"]))


def _libraries(setting: Setting, host: Host) -> Iterator[Stranger]:
    listed, folders = ld_cache.libraries(host), ld_cache.folders(host)
    if listed is None:
        why = "it is no cache of libraries: ldconfig makes it anew"
        yield Stranger(ld_cache.CACHE, why, content(ld_cache.CACHE, host))
    for path in listed or ():
        if not ld_cache.is_configured(path, folders):
            why = f"{ld_cache.CACHE} leads there, and no configuration of the loader names that folder"
            yield Stranger(path, f"{why}: ldconfig makes it anew", content(path, host))


def _authorities(setting: Setting, host: Host) -> Iterator[Stranger]:
    yield from authorities.strangers(host)


def _cluster_authorities(setting: Setting, host: Host) -> Iterator[Stranger]:
    yield from cluster_authorities.strangers(setting["paths"], host)


def _plugins(setting: Setting, host: Host) -> Iterator[Stranger]:
    for path, why in plugins.strangers(host):
        by_hand = f"by hand: rm {shlex.quote(path)}, and restart K3s, which makes its links anew"
        yield Stranger(path, f"{why}; {by_hand}", content(path, host))


def _credentials(setting: Setting, host: Host) -> Iterator[Stranger]:
    secrets, ours = host.cached("credentials", lambda: (credentials.needles(host), credentials.marks(host)))
    skipped = tuple(setting.get("skipped", ()))
    for path in dict.fromkeys(found for pattern in setting["paths"] for found in host.glob(pattern, hidden=True)):
        found = host.stat(path)
        if found is None or not statmod.S_ISREG(found.st_mode) or path.startswith(skipped) or not found.st_size:
            continue
        try:
            what = credentials.held(path, found.st_size, secrets, ours, host)
        except FileNotFoundError:
            continue  # gone since it was listed
        except OSError as lacking:  # a home on a file server may be closed to root
            yield Stranger(path, f"nobody knows what it holds: {lacking.strerror}", "special")
            continue
        if what:
            owner, mode = name_of(pwd.getpwuid, found.st_uid), statmod.S_IMODE(found.st_mode)
            who = "which everybody may read" if mode & 0o004 else f"which {owner} may read"
            # No digest of a secret: who reads a report could try what it may be.
            shown = hashlib.sha256(f"{what} {owner} {mode:04o}".encode()).hexdigest()
            yield Stranger(path, f"it holds {what}, {who} (mode {mode:04o}): remove it", f"sha256:{shown}")


_LOOK = {
    "authorities": _authorities, "cluster_authorities": _cluster_authorities, "credentials": _credentials,
    "libraries": _libraries, "plugins": _plugins,
}  # fmt: skip

KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    places=lambda setting: setting["paths"],
    units=lambda setting: UNITS if setting["of"] == "plugins" else (),
)
