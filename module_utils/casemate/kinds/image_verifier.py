"""Whether containerd asks our verifier before each pull, and what that answers.

containerd lets every image through where the folder of verifiers is missing or empty, where its pulls are not made by
its transfer service, or where a later setting names another folder. Its settings are asked from itself, merged as at
its start (`containerd config dump`); what makes it leave the transfer service stands in internal/cri/config/config.go
(CheckLocalImagePullConfigs) of containerd 2.3.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Dict, List, Literal, Set, TypedDict

from ..core import waiver
from ..core.flow import several
from ..core.schema import Key
from ..core.verdict import Observation, Unasked, Unavailable, Verdict
from ..formats.toml_dump import parse
from ..host.clock import NEVER, Start, after, content_time
from ..host.machine import Host
from ..k3s import image_verifier as program
from ..k3s.services import UNITS, running_unit
from .image_list import UNSET
from .kind import Enforceable, Kind, each


class Needed(TypedDict):
    """What every setting of this kind says."""

    aspect: Annotated[Literal["asked", "answers"], Key("that containerd asks it, or what it answers")]
    folder: Annotated[str, Key("containerd's folder of verifiers", pattern=r"/\S+")]
    program: Annotated[str, Key("the name of ours in it", pattern=r"[a-z0-9.-]+")]
    lists: Annotated[str, Key("the folder of the list on the node", pattern=r"/\S+")]
    wanted: Annotated[bool, Key("whether the operator has a list")]


class Setting(Needed, Enforceable):
    """What a control of this kind demands."""


CONTAINERD = "/var/lib/rancher/k3s/data/current/bin/containerd"
HOME = "/var/lib/rancher/k3s/agent/etc/containerd"
CONFIG, DROPINS, OURS = f"{HOME}/config.toml", f"{HOME}/config-v3.toml.d", f"{HOME}/config-v3.toml.d/50-casemate.toml"
IMAGES = ("plugins", "io.containerd.cri.v1.images")
BINDIR = ("plugins", "io.containerd.image-verifier.v1.bindir")
NEEDED = ("io.containerd.image-verifier.v1.bindir", "io.containerd.transfer.v1.local")
TRANSFERRED = {
    "use_local_image_pull": "false",
    "disable_snapshot_annotations": "true",
    "discard_unpacked_layers": "false",
    "max_concurrent_downloads": "3",
    "image_pull_with_sync_fs": "false",
}
"""Of IMAGES: key -> the value with which pulls are made by the transfer service, which alone asks verifiers."""
REGISTRY = ("configs", "mirrors", "auths")
"""Tables below IMAGES' registry with which they are not; K3s writes `configs` for the logins of registries.yaml."""
STRANGER = ("casemate.invalid/not-on-the-list", "sha256:" + "0" * 64)
"""An image that no list has."""
SECONDS = 10.0


def identity(setting: Setting) -> str:
    """One control for each aspect."""
    return setting["aspect"]


def observe(settings: List[Setting], host: Host, waived: Collection[int] = ()) -> List[Any]:
    """What is wrong with each aspect, or why nobody can say."""
    return each(settings, lambda setting: _look(setting, host))


def _look(setting: Setting, host: Host) -> Observation:
    if not setting["wanted"]:
        raise Unasked(UNSET)
    return _asked(setting, host) if setting["aspect"] == "asked" else _answers(setting, host)


def _asked(setting: Setting, host: Host) -> Observation:
    unit, started = running_unit(host)
    if not unit or host.stat(CONFIG) is None:
        raise Unavailable("k3s", "K3s does not run here, so containerd has no settings")
    dumped = host.run([host.path(CONTAINERD), "-c", host.path(CONFIG), "config", "dump"])
    if dumped.rc != 0:
        last = (dumped.err or dumped.out).strip().split("\n")[-1]
        refusal = f"containerd would not start again with its settings: {last[:300]}"
        return {"faults": [refusal], "stale": "", "ours": OURS in host.failing_files}
    faults = unasked(dumped.out, setting["folder"])
    late = "" if faults else _late(host, started)
    said = [f"{unit} was started before {late} changed, so what containerd runs with is not known"] if late else []
    stale = f"{unit}.service" if late else ""
    return {"faults": faults + said, "stale": stale, "ours": OURS in host.failing_files}


def unasked(dump: str, folder: str) -> List[str]:
    """Why containerd with these settings pulls without asking the verifiers of a folder. Pure."""
    tables = parse(dump)
    images, bindir = tables.get(IMAGES, {}), tables.get(BINDIR, {})
    off = tables[()].get("disabled_plugins", "")
    faults = [f"disabled_plugins has {plugin}" for plugin in NEEDED if plugin in off]
    if bindir.get("bin_dir") != folder:
        faults.append(f"bin_dir of the verifiers is {bindir.get('bin_dir')!r}")
    if not bindir.get("max_verifiers", "").startswith("-"):
        faults.append(f"max_verifiers is {bindir.get('max_verifiers')}, so that others may come before ours")
    for key, value in TRANSFERRED.items():
        if images.get(key) != value:
            faults.append(f"{key} is {images.get(key)}, so that no verifier is asked")
    for name in REGISTRY:
        inner = sorted({table[4] for table in tables if table[:4] == (*IMAGES, "registry", name) and len(table) > 4})
        if inner:
            login = ": logins of registries.yaml make it so" if name == "configs" else ""
            faults.append(f"registry.{name} has {', '.join(inner)}, so that no verifier is asked{login}")
    return faults


def _late(host: Host, started: Start) -> str:
    """What of containerd's drop-ins changed after K3s was started; our own file is another control's."""
    if started == NEVER or OURS in host.failing_files:
        return ""
    paths = [DROPINS, *(path for path in host.glob(f"{DROPINS}/*.toml", hidden=True) if path != OURS)]
    found = ((path, host.stat(path)) for path in paths)
    return next((host.dated(path) for path, seen in found if seen and after(content_time(seen), started)), "")


def _answers(setting: Setting, host: Host) -> Observation:
    faults = []
    accepted, said = _pull(setting, host, *STRANGER)
    if accepted:
        faults.append(f"it lets through what no list has: {said}")
    elif "not on the list" not in said:
        faults.append(f"it refuses every image: {said}")
    known = None if faults else _known(setting, host)
    if known:
        accepted, said = _pull(setting, host, known.image, known.digest)
        faults += [] if accepted else [f"it refuses {known.image}@{known.digest}: {said}"]
    return {"faults": faults, "stale": "", "ours": True}


def _known(setting: Setting, host: Host) -> Any:
    """An image that may be pulled; None where further verifiers are asked too, which may take their time."""
    if (host.text(f"{setting['lists']}/{program.FURTHER}") or "").strip() != "[]":
        return None
    today = waiver.today_in_utc()  # the node's, as its verifier goes by
    try:
        images = program.read(host.text(f"{setting['lists']}/{program.LIST}") or "")
    except program.Refused:
        return None
    return next((entry for entry in images.entries if entry.until >= today), None)


def _pull(setting: Setting, host: Host, image: str, digest: str) -> tuple[bool, str]:
    """Whether ours lets an image through, asked as containerd asks it, and what it says."""
    path = host.path(f"{setting['folder']}/{setting['program']}")
    kind = "application/vnd.oci.descriptor.v1+json"
    done = host.run([path, "-name", image, "-digest", digest, "-stdin-media-type", kind], "{}\n", SECONDS)
    return done.rc == 0, (done.out or done.err).strip()[:300] or f"it ended with {done.rc} and said nothing"


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is that nothing is wrong. What containerd has not read yet it reads when K3s starts again.

    Settings of others are theirs to mend, unless our own drop-in is what differs, which its own control brings back.
    """
    faults: List[str] = seen["faults"]
    asked = setting["aspect"] == "asked"
    right = "asks the verifier before each pull" if asked else "lets through what is on the list, and nothing else"
    return Verdict(
        ok=not faults,
        expected=right,
        observed=f"faults: {len(faults)}" if faults else right,
        reason=several(faults),
        evidence=f"containerd -c {CONFIG} config dump" if asked else f"{setting['folder']}/{setting['program']}",
        stale=(seen["stale"],) if seen["stale"] else (),
        blocked_by="" if seen["stale"] or seen["ours"] else several(faults),
    )


def enforce(settings: List[Setting], failing: Set[int], host: Host) -> None:
    """Nothing is written for it: the unit is stale, so that its role starts K3s again."""


PLACES: Dict[str, str] = {"asked": DROPINS}


KIND: Kind[Setting] = Kind(
    Setting,
    identity,
    observe,
    assess,
    enforced_by="engine",
    enforce=enforce,
    units=lambda setting: UNITS,
    places=lambda setting: [PLACES.get(setting["aspect"]) or f"{setting['folder']}/{setting['program']}"],
)
