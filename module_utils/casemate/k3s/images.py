"""Which images run on this node: what the container runtime says runs, by the digest that a pull of it resolves.

The runtime names a container's image by the digest of its configuration; signed lists, scanners and registries name it
by the digest of its manifest, or of the index that leads there. What joins the two lies in containerd's content store,
where each blob is a file named after its digest. Sources: OCI image specification 1.1; Kubernetes, CRI v1; containerd,
docs/content-flow.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Tuple

from ..core.verdict import Unavailable
from ..formats.image_reference import repository
from ..host.files import mount_points
from ..host.machine import Host
from ..host.text import split_lines, split_words
from .services import running_unit

STORE = "/var/lib/rancher/k3s/agent/containerd/io.containerd.content.v1.content/blobs/sha256"
K3S = "/usr/local/bin/k3s"
CONTAINERS = [K3S, "crictl", "ps", "--output", "json"]
SANDBOXES = [K3S, "ctr", "--namespace", "k8s.io", "containers", "list"]
IMAGES = [K3S, "ctr", "--namespace", "k8s.io", "images", "list"]
SECONDS = 60.0
"""How long the runtime may take to answer."""
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
LABELS = ("io.kubernetes.pod.namespace", "io.kubernetes.pod.name", "io.kubernetes.container.name")
SANDBOX, VOLUME = "(sandbox)", "(volume)"
"""In place of a container's name: the container that holds the namespaces of a pod, or a volume that is an image."""
VOLUMES = re.compile(r"/run/k3s/containerd/.+/image-volumes/([0-9a-f]{64})/([0-9a-f]{64})")
"""Where containerd mounts such a volume: below its sandbox, by the digest that its name leads to. The list of
containers does not tell of it. Source: getImageVolumeHostPath in internal/cri/server/helpers.go of containerd 2.3."""
DEPTH = 4
"""Levels of indexes within each other that are followed."""


class Image(NamedTuple):
    """An image that runs here, or is mounted as a volume of a pod.

    `id` is the digest of its configuration, `digests` are those of the manifests and indexes by which the image store
    knows it; none where it was removed from there while it runs. `names` are its names there. `created` is when it was
    built, ISO 8601 as its configuration says, "" where it does not. `platform` is such as linux/amd64. `annotations`
    are those of its manifest and index, and the labels of its configuration, in which many builders put them. `pods`
    are where it runs, as namespace/pod/container, and `asked` the names by which they ask for it, as they say them: a
    name that was pulled anew since then leads to another image by now.
    """

    id: str
    digests: List[str]
    names: List[str]
    created: str
    platform: str
    annotations: Dict[str, str]
    pods: List[str]
    asked: List[str]

    @property
    def digest(self) -> str:
        """The digest that stands for it: that of its manifest or index, else that of its configuration."""
        return self.digests[0] if self.digests else self.id

    @property
    def repository(self) -> str:
        """Where it comes from: the repository that has this digest where one is named, else the first; "" for none."""
        names = sorted(self.names or self.asked, key=lambda name: (not name.endswith(f"@{self.digest}"), name))
        return next(filter(None, map(repository, names)), "")

    @property
    def name(self) -> str:
        """Repository and digest."""
        return f"{self.repository}@{self.digest}".lstrip("@")


class Stored(NamedTuple):
    """What the content store has of a configuration: the digests that lead to it, and what they say."""

    digests: List[str]
    names: List[str]
    annotations: Dict[str, str]


class Use(NamedTuple):
    """Where an image runs, as namespace/pod/container, and by which name the pod asks for it ("": it is not said)."""

    pod: str
    asked: str


def running(host: Host) -> List[Image]:
    """The images of all containers and sandboxes that run, and of volumes, by digest; read once in a pass.

    Raises Unavailable where K3s does not run, or the container runtime does not answer.
    """
    if not running_unit(host)[0]:
        raise Unavailable("k3s", "K3s does not run here, and no image by it")
    return host.cached("images that run", lambda: _running(host))


def _running(host: Host) -> List[Image]:
    stored, named = _stored(host)
    uses: Dict[str, List[Use]] = {}
    for image, use in _containers(host, named):
        uses.setdefault(image, []).append(use)
    found = [_image(host, image, stored.get(image), where) for image, where in uses.items()]
    return sorted(found, key=lambda one: (one.digest, one.id))


def _image(host: Host, image: str, stored: Any, uses: List[Use]) -> Image:
    config = _blob(host, image)
    known = stored or Stored([], [], {})
    about = config.get("config")
    labels = about.get("Labels") if isinstance(about, dict) else None
    noted = {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}
    # A name with a digest was pulled, or imported by K3s: that digest is the one that others know.
    pulled = {name.rpartition("@")[2] for name in known.names if "@" in name}
    digests = sorted(set(known.digests), key=lambda digest: (digest not in pulled, digest))
    created = config.get("created")
    return Image(
        image,
        digests,
        sorted(known.names),
        created if isinstance(created, str) else "",
        _platform(config),
        {**noted, **known.annotations},
        sorted({use.pod for use in uses}),
        sorted({use.asked for use in uses} - {""}),
    )


def _platform(config: Mapping[str, Any]) -> str:
    """Such as linux/amd64. All arm64 is v8, which some say and others leave out (platforms.Normalize of containerd)."""
    parts = [str(config[part]) for part in ("os", "architecture", "variant") if config.get(part)]
    return "/".join(parts[:2] if parts[1:] in (["arm64", "v8"], ["arm64", "8"]) else parts)


def _containers(host: Host, named: Mapping[str, str]) -> Iterator[Tuple[str, Use]]:
    """(digest of the configuration, its use) of what runs or is mounted. `named`: name or digest -> that digest."""
    try:
        listed = json.loads(_said(host, CONTAINERS))["containers"] or ()
        found = [
            (
                one["imageRef"],
                one["podSandboxId"],
                [one["labels"].get(name, "") for name in LABELS],
                str((one.get("image") or {}).get("userSpecifiedImage") or ""),
            )
            for one in listed
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as strange:
        raise Unavailable("runtime", f"`{' '.join(CONTAINERS)}` answers what is no list of containers") from strange
    of = {sandbox: "/".join([*labels[:2], SANDBOX]) for _, sandbox, labels, _ in found}
    for image, _, labels, asked in found:
        yield image, Use("/".join(labels), asked)
    for line in split_lines(_said(host, SANDBOXES))[1:]:
        container, name = [*split_words(line), "", ""][:2]
        if container in of:
            yield named.get(name, name), Use(of[container], "")
    for path in mount_points(host.text("/proc/self/mountinfo") or ""):
        if mounted := VOLUMES.fullmatch(path):
            sandbox, digest = mounted[1], f"sha256:{mounted[2]}"
            pod = of.get(sandbox, f"(sandbox {sandbox[:12]})/").rpartition("/")[0]
            yield named.get(digest, digest), Use(f"{pod}/{VOLUME}", "")


def _stored(host: Host) -> Tuple[Dict[str, Stored], Dict[str, str]]:
    """Digest of a configuration -> what leads to it; and name or digest of an image -> digest of its configuration."""
    found: Dict[str, Stored] = {}
    named: Dict[str, str] = {}
    rows = [[*split_words(line), "", "", ""][:3] for line in split_lines(_said(host, IMAGES))[1:]]
    # The runtime itself adds a name for the configuration of each image that it may run.
    of_this_platform = {name for name, _, _ in rows if DIGEST.fullmatch(name)}
    for name, _, digest in rows:
        for config, noted in _configs(host, digest, {}, DEPTH):
            known = found.setdefault(config, Stored([], [], {}))
            known.digests.append(digest)
            known.annotations.update(noted)
            for known_as in (name, digest):
                if config in of_this_platform or known_as not in named:
                    named[known_as] = config
            if name not in of_this_platform:
                known.names.append(name)
    return found, named


def _configs(host: Host, digest: str, above: Dict[str, str], depth: int) -> Iterator[Tuple[str, Dict[str, str]]]:
    """The configurations that a manifest or index leads to, as far as it is here, with the annotations on the way."""
    blob = _blob(host, digest)
    own = blob.get("annotations")
    annotations = {**above, **{str(k): str(v) for k, v in (own if isinstance(own, dict) else {}).items()}}
    config = blob.get("config")
    if isinstance(config, dict) and config.get("digest"):
        yield str(config["digest"]), annotations
    elif depth:
        for one in blob.get("manifests") or ():
            if isinstance(one, dict):
                yield from _configs(host, str(one.get("digest")), annotations, depth - 1)


def _blob(host: Host, digest: str) -> Dict[str, Any]:
    """A blob of JSON from the content store; empty where it is not there, or is not what its name says."""
    name = DIGEST.fullmatch(digest)
    data = host.read(f"{STORE}/{name[1]}") if name else None
    if data is None or name is None or hashlib.sha256(data).hexdigest() != name[1]:
        return {}
    try:
        made = json.loads(data)
    except ValueError:
        return {}
    return made if isinstance(made, dict) else {}


def _said(host: Host, command: List[str]) -> str:
    done = host.run(command, timeout=SECONDS)
    if done.rc != 0:
        said = (done.err or done.out).strip()[-200:]
        raise Unavailable("runtime", f"the container runtime does not say what runs: `{' '.join(command)}`: {said}")
    return done.out
