"""A container runtime for tests: blobs of a content store, and what crictl and ctr print of what runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unit.fake_host import FakeHost

from module_utils.casemate.k3s import images

Blobs = dict[str, str]
"""Path in the content store -> content."""


def blob(blobs: Blobs, **content: Any) -> str:
    """Put JSON into the content store; return its digest."""
    text = json.dumps(content, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()
    blobs[f"{images.STORE}/{name}"] = text
    return f"sha256:{name}"


def image(blobs: Blobs, created: str, annotations: Mapping[str, str] | None = None, **more: Any) -> tuple[str, str]:
    """(digest of the manifest, digest of the configuration) of an image that was built then, for linux/amd64 unless
    `more` of its configuration says otherwise.
    """
    about = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}, **more}
    config = blob(blobs, created=created, **about)
    manifest: dict[str, Any] = {"schemaVersion": 2, "config": {"digest": config}, "layers": []}
    return blob(blobs, **manifest, **({"annotations": dict(annotations)} if annotations else {})), config


def container(config: str, pod: str, name: str = "main", asked: str = "") -> dict[str, Any]:
    """A container of a pod, given as namespace/name, which asks for its image so, as crictl lists it."""
    namespace, _, called = pod.partition("/")
    labels = dict(zip(images.LABELS, (namespace, called, name), strict=True))
    image = {"image": config, "annotations": {}, "userSpecifiedImage": asked, "runtimeHandler": ""}
    about = {"id": f"{called}-{name}", "podSandboxId": f"sandbox-{called}", "image": image}
    return {**about, "imageRef": config, "labels": labels}


def node(
    folder: Path,
    blobs: Blobs,
    named: Sequence[tuple[str, str]],
    containers: Sequence[dict[str, Any]],
    sandboxes: Mapping[str, str] | None = None,
    context: Mapping[str, Any] | None = None,
    volumes: Sequence[tuple[str, str]] = (),
) -> FakeHost:
    """A host whose runtime knows images by (name, digest), runs containers, and sandboxes: pod -> name of its image.

    `volumes` are (64 digits of a sandbox, digest of an image that is mounted below it).
    """
    kind = "application/vnd.oci.image.manifest.v1+json"
    rows = [f"{name} {kind} {digest} 1.0 MiB linux/amd64 -" for name, digest in named]
    held = [f"sandbox-{pod} {name} io.containerd.runc.v2" for pod, name in (sandboxes or {}).items()]
    said = {
        tuple(images.images_of(images.KUBELETS)): "\n".join(["REF TYPE DIGEST SIZE PLATFORMS LABELS", *rows, ""]),
        tuple(images.containers_of(images.KUBELETS)): "\n".join(["CONTAINER IMAGE RUNTIME", *held, ""]),
        tuple(images.CONTAINERS): json.dumps({"containers": list(containers)}),
    }
    commands = {" ".join(command): (0, out, "") for command, out in said.items()}
    commands["systemctl show k3s.service"] = (0, "ActiveState=active\nMainPID=7\n", "")
    below = "/run/k3s/containerd/io.containerd.grpc.v1.cri/image-volumes"
    mounts = [f"9 1 0:9 / {below}/{pod}/{digest[7:]} ro - overlay overlay ro" for pod, digest in volumes]
    files = {**blobs, "/proc/self/mountinfo": "\n".join(["1 0 0:1 / / rw - ext4 /dev/vda rw", *mounts, ""])}
    return FakeHost(folder, files, commands, context)
