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
from collections.abc import Collection
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Set, Tuple

from ..core.verdict import Unavailable
from ..formats.image_reference import repository
from ..host.files import mount_points
from ..host.machine import Host
from ..host.text import split_lines, split_words
from .services import running_unit

STORE = "/var/lib/rancher/k3s/agent/containerd/io.containerd.content.v1.content/blobs/sha256"
K3S = "/usr/local/bin/k3s"
CONTAINERS = [K3S, "crictl", "ps", "--output", "json"]
KUBELETS = "k8s.io"
"""The namespace of containerd in which the kubelet's containers are; somebody with a shell may use others, too."""
TASKS = "/run/k3s/containerd/io.containerd.runtime.v2.task/*/*"
"""A folder for each container whose processes containerd keeps, by its namespace and id, whoever started it."""
SECONDS = 60.0
"""How long the runtime may take to answer."""
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
LABELS = ("io.kubernetes.pod.namespace", "io.kubernetes.pod.name", "io.kubernetes.container.name")
SANDBOX, VOLUME = "(sandbox)", "(volume)"
"""In place of a container's name: the container that holds the namespaces of a pod, or a volume that is an image."""
BESIDE = "(containerd)"
"""In place of a pod's namespace: nobody but containerd knows the container, by its own namespace and id."""
NO_IMAGE = "(no image)"
"""In place of an image: the container was started from a folder."""
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


def containers_of(namespace: str) -> List[str]:
    """The command that lists the containers of a namespace of containerd, sandboxes too."""
    return [K3S, "ctr", "--namespace", namespace, "containers", "list"]


def images_of(namespace: str) -> List[str]:
    """The command that lists the images of a namespace of containerd."""
    return [K3S, "ctr", "--namespace", namespace, "images", "list"]


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

    Those that nobody but containerd knows of (`ctr run`) are among them, of all of its namespaces.

    Raises Unavailable where K3s does not run, or the container runtime does not answer.
    """
    if not running_unit(host)[0]:
        raise Unavailable("k3s", "K3s does not run here, and no image by it")
    return host.cached("images that run", lambda: _running(host))


def _running(host: Host) -> List[Image]:
    stored, named = _stored(host, KUBELETS)
    uses: Dict[str, List[Use]] = {}
    known: Set[str] = set()
    for container, image, use in _containers(host, named):
        known.add(container)
        uses.setdefault(image, []).append(use)
    for namespace, others in _others(host, known).items():
        own, called = (stored, named) if namespace == KUBELETS else _stored(host, namespace)
        stored = {**own, **stored}
        for container, image in _rows(host, containers_of(namespace)):
            if container in others:
                use = Use(f"{BESIDE}/{namespace}/{container[:12]}", "")
                uses.setdefault(NO_IMAGE if image == "-" else called.get(image, image), []).append(use)
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


def _others(host: Host, known: Collection[str]) -> Dict[str, Set[str]]:
    """Namespace of containerd -> ids of containers there that are not among those by which the kubelet's pods run.

    A pod that is only starting has some, too; their images are judged like all others.
    """
    found: Dict[str, Set[str]] = {}
    for path in host.glob(TASKS, hidden=True):
        namespace, container = path.split("/")[-2:]
        if namespace != KUBELETS or container not in known:
            found.setdefault(namespace, set()).add(container)
    return found


def _rows(host: Host, command: List[str]) -> List[Tuple[str, str]]:
    """The first two columns of what ctr lists, without its heading."""
    rows = [[*split_words(line), "", ""] for line in split_lines(_said(host, command))[1:]]
    return [(row[0], row[1]) for row in rows]


def _containers(host: Host, named: Mapping[str, str]) -> Iterator[Tuple[str, str, Use]]:
    """(container, digest of the configuration, its use) of what runs, and of what is mounted, which is no container.

    `named`: name or digest -> that digest.
    """
    try:
        listed = json.loads(_said(host, CONTAINERS))["containers"] or ()
        found = [
            (
                one["id"],
                one["imageRef"],
                one["podSandboxId"],
                [one["labels"].get(name, "") for name in LABELS],
                str((one.get("image") or {}).get("userSpecifiedImage") or ""),
            )
            for one in listed
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as strange:
        raise Unavailable("runtime", f"`{' '.join(CONTAINERS)}` answers what is no list of containers") from strange
    of = {sandbox: "/".join([*labels[:2], SANDBOX]) for _, _, sandbox, labels, _ in found}
    for container, image, _, labels, asked in found:
        yield container, image, Use("/".join(labels), asked)
    for container, name in _rows(host, containers_of(KUBELETS)):
        if container in of:
            yield container, named.get(name, name), Use(of[container], "")
    for path in mount_points(host.text("/proc/self/mountinfo") or ""):
        if mounted := VOLUMES.fullmatch(path):
            sandbox, digest = mounted[1], f"sha256:{mounted[2]}"
            pod = of.get(sandbox, f"(sandbox {sandbox[:12]})/").rpartition("/")[0]
            yield "", named.get(digest, digest), Use(f"{pod}/{VOLUME}", "")


def _stored(host: Host, namespace: str) -> Tuple[Dict[str, Stored], Dict[str, str]]:
    """Digest of a configuration -> what leads to it; and name or digest of an image -> digest of its configuration.

    Names are those of a namespace of containerd; blobs lie in one store for all.
    """
    found: Dict[str, Stored] = {}
    named: Dict[str, str] = {}
    lines = split_lines(_said(host, images_of(namespace)))[1:]
    rows = [[*split_words(line), "", "", ""][:3] for line in lines]
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
        below = blob.get("manifests")
        for one in below if isinstance(below, list) else ():
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
    except (ValueError, RecursionError):  # whoever may run an image writes what stands there
        return {}
    return made if isinstance(made, dict) else {}


def _said(host: Host, command: List[str]) -> str:
    done = host.run(command, timeout=SECONDS)
    if done.rc != 0:
        said = (done.err or done.out).strip()[-200:]
        raise Unavailable("runtime", f"the container runtime does not say what runs: `{' '.join(command)}`: {said}")
    return done.out
