"""Which images an archive of a K3s release holds, by what a node knows them by: the digests of their configurations.

The archive is what `docker image save` makes: a tar whose manifest.json names the configuration of each image, which in
turn names the digests of all its layers unpacked. A node has other manifests of them (it makes its own at import), but
the same configurations.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from typing import FrozenSet

from ..formats.zstd import Reader

MOST = 1 << 22
"""Bytes of a manifest.json that are read."""


def configurations(path: str) -> FrozenSet[str]:
    """The digests (`sha256:…`) of the configurations of all images in a compressed archive.

    Raises OSError for one that cannot be read or names none.
    """
    with open(path, "rb") as file, io.BufferedReader(Reader(file), 1 << 20) as plain:
        try:
            with tarfile.open(fileobj=plain, mode="r|", bufsize=1 << 20) as archive:
                held = next((archive.extractfile(one) for one in archive if one.name == "manifest.json"), None)
                listed = json.loads(held.read(MOST)) if held else []
        except (tarfile.TarError, ValueError) as broken:
            raise OSError(f"{path} is no archive of images: {broken}") from broken
    names = (re.search(r"([0-9a-f]{64})(\.json)?$", str(image.get("Config", ""))) for image in listed)
    found = frozenset(f"sha256:{name[1]}" for name in names if name)
    if not found:
        raise OSError(f"{path} names no image")
    return found
