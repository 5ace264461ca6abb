"""Images for a test's registry: each the same layer under another label, and one with an index, as an archive.

The layer is that of an image which nodes have, as `ctr images export` packs it: an OCI layout in a tar.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image"


def first_layer(exported: bytes) -> bytes:
    """The first layer of the first image of an archive, as it is stored there."""
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:

        def held(name: str) -> bytes:
            return archive.extractfile(name).read()  # type: ignore[union-attr]

        made = json.loads(held("index.json"))
        while "manifests" in made:
            made = json.loads(held(f"blobs/sha256/{made['manifests'][0]['digest'][7:]}"))
        return held(f"blobs/sha256/{made['layers'][0]['digest'][7:]}")


def write(path: Path, layer: bytes, names: tuple[str, ...]) -> dict[str, str]:
    """Write an archive of images with one layer, an uncompressed tar; return their digests by name.

    `index` is an index whose only platform is the image `platform`.
    """
    blobs: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return digest

    def described(kind: str, digest: str) -> dict[str, Any]:
        return {"mediaType": f"{OCI}.{kind}", "digest": digest, "size": len(blobs[digest])}

    held = put(layer)

    def image(name: str) -> str:
        config = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": [held]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": described("config.v1+json", put(json.dumps(config).encode())),
            "layers": [described("layer.v1.tar", held)],
        }
        return put(json.dumps(manifest).encode())

    made = {name: image(name) for name in (*names, "platform")}
    of = {**described("manifest.v1+json", made["platform"]), "platform": {"architecture": "amd64", "os": "linux"}}
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [of]}
    made["index"] = put(json.dumps(index).encode())
    with tarfile.open(path, "w") as archive:
        for digest, data in blobs.items():
            entry = tarfile.TarInfo(f"blobs/sha256/{digest[7:]}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return made
