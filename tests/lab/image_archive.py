"""Images for a test's registry: each the same layer under another label, and one with an index, as an archive.

The layer is that of an image which nodes have, as `ctr images export` packs it: an OCI layout in a tar.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .applied import Lab

OCI = "application/vnd.oci.image"


EXPORT = """
for try in 1 2 3 4 5 6; do
  if k3s ctr -n k8s.io images export /run/exported.tar {image} >&2 && tar -tf /run/exported.tar >/dev/null; then
    base64 -w0 /run/exported.tar
    exec rm /run/exported.tar
  fi
  sleep 5
done
exit 1
"""


def exported(lab: Lab, host: str, image: str) -> bytes:
    """The archive of an image of a host; `image` is a word of the shell. A loaded runtime may need several tries."""
    return base64.b64decode(lab.root(host, EXPORT.format(image=image)))


def first_layer(exported: bytes) -> bytes:
    """The first layer of the first image of an archive, as it is stored there."""
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:

        def held(name: str) -> bytes:
            return archive.extractfile(name).read()  # type: ignore[union-attr]

        made = json.loads(held("index.json"))
        while "manifests" in made:
            made = json.loads(held(f"blobs/sha256/{made['manifests'][0]['digest'][7:]}"))
        return held(f"blobs/sha256/{made['layers'][0]['digest'][7:]}")


class Images:
    """Images with one layer, an uncompressed tar; `configs` are the digests of their configurations by their own."""

    def __init__(self, layer: bytes) -> None:
        """Begin with no image."""
        self.blobs: dict[str, bytes] = {}
        self.configs: dict[str, str] = {}
        self.layer = self.put(layer)

    def put(self, data: bytes) -> str:
        """Keep a blob; return its digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def described(self, kind: str, digest: str) -> dict[str, Any]:
        """The descriptor of a blob."""
        return {"mediaType": f"{OCI}.{kind}", "digest": digest, "size": len(self.blobs[digest])}

    def image(
        self, name: str, created: str = "2026-01-01T00:00:00Z", annotations: Mapping[str, str] | None = None
    ) -> str:
        """Make an image that has a name as its label and was built then; return its digest."""
        config = {
            "architecture": "amd64",
            "os": "linux",
            "created": created,
            "config": {"Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": [self.layer]},
        }
        held = self.put(json.dumps(config).encode())
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": self.described("config.v1+json", held),
            "layers": [self.described("layer.v1.tar", self.layer)],
            **({"annotations": dict(annotations)} if annotations else {}),
        }
        digest = self.put(json.dumps(manifest).encode())
        self.configs[digest] = held
        return digest

    def index(self, image: str) -> str:
        """Make an index whose only platform is an image; return its digest."""
        of = {**self.described("manifest.v1+json", image), "platform": {"architecture": "amd64", "os": "linux"}}
        index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [of]}
        return self.put(json.dumps(index).encode())

    def write(self, path: Path) -> None:
        """Write all of them into one archive."""
        with tarfile.open(path, "w") as archive:
            for digest, data in self.blobs.items():
                entry = tarfile.TarInfo(f"blobs/sha256/{digest[7:]}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


def write(path: Path, layer: bytes, names: tuple[str, ...]) -> dict[str, str]:
    """Write an archive of images; return their digests by name. `index` is one whose only platform is `platform`."""
    images = Images(layer)
    made = {name: images.image(name) for name in (*names, "platform")}
    made["index"] = images.index(made["platform"])
    images.write(path)
    return made
