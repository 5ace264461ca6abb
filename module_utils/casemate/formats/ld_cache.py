"""Where the dynamic loader finds libraries: its cache, and the folders that its configuration names.

Sources: ld.so(8), ldconfig(8); glibc's sysdeps/generic/dl-cache.h for the cache (struct cache_file_new).
"""

from __future__ import annotations

import posixpath
import re
import struct
from typing import List, Optional, Set

from ..host.machine import Host
from ..host.text import split_lines

CACHE, CONFIG = "/etc/ld.so.cache", "/etc/ld.so.conf"
MAGIC = b"glibc-ld.so.cache1.1"
HEADER, ENTRY = struct.Struct("=20sII20x"), struct.Struct("=iIIIQ")
DEFAULT = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/lib32", "/libx32")
DEEPEST = 8
"""Files that may include each other."""


def libraries(host: Host) -> Optional[List[str]]:
    """Every path that the cache leads to; None for a file that is no cache. Without one the loader looks itself."""
    data = host.read(CACHE)
    if data is None:
        return []
    start = data.find(MAGIC)  # an older form may come before it
    if start < 0:
        return None
    data = data[start:]
    try:
        _, count, _ = HEADER.unpack_from(data)
        entries = [ENTRY.unpack_from(data, HEADER.size + index * ENTRY.size) for index in range(count)]
        return sorted({data[value : data.index(b"\0", value)].decode() for _, _, value, _, _ in entries})
    except (struct.error, ValueError):
        return None


def is_configured(path: str, folders: Set[str]) -> bool:
    """Whether a library lies in one of the folders, or in one for newer processors there."""
    return _folder(re.sub(r"/glibc-hwcaps/[^/]+$", "", posixpath.dirname(path))) in folders


def folders(host: Host) -> Set[str]:
    """Where the loader looks by itself, and where its configuration tells it to."""
    return {_folder(one) for one in (*DEFAULT, *_named(CONFIG, host, DEEPEST))}


def _named(path: str, host: Host, depth: int) -> List[str]:
    found: List[str] = []
    for line in split_lines(host.text(path) or ""):
        words = line.partition("#")[0].split()
        if words[:1] == ["include"] and depth:
            patterns = (posixpath.join(posixpath.dirname(path), one) for one in words[1:])
            found += [
                one for pattern in patterns for each in host.glob(pattern) for one in _named(each, host, depth - 1)
            ]
        elif words and words[0] not in ("include", "hwcap"):
            found += [word.partition("=")[0] for word in re.split(r"[\s:,]+", " ".join(words))]
    return found


def _folder(path: str) -> str:
    """/lib is another name of /usr/lib."""
    path = posixpath.normpath(path)
    return path[len("/usr") :] if path.startswith("/usr/lib") else path
