"""hosts.toml of containerd: whom it asks for the images of a registry. Python 3.9 reads no TOML.

Of TOML what K3s writes and people write there: one key a line, tables of one host each. What is anything else is
refused, since containerd may read more in it than this does. Source: docs/hosts.md of containerd.
"""

from __future__ import annotations

import re
from typing import Dict, List, NamedTuple, Tuple

from ..host.text import split_lines

TEXT = r"\"([^\"\\]*)\"|'([^']*)'"
KEY = rf"(?:{TEXT}|([A-Za-z0-9_-]+))"
IGNORED = ("capabilities", "ca", "client", "header", "dial_timeout", "rewrite")
"""What changes neither whom is asked nor whether that is verified."""
TRUTH = {"true": True, "false": False}


class Endpoint(NamedTuple):
    """Somebody who is asked: `url`, empty for the registry itself, and whether its certificate is not looked at."""

    url: str
    unverified: bool


class Unreadable(ValueError):  # noqa: N818 - not an error but an answer
    """A line that is not understood."""


def parse(text: str) -> List[Endpoint]:
    """Whom containerd asks, in its order: the hosts, then `server`, or the registry itself where there is no host.

    Raises Unreadable.
    """
    tables: Dict[Tuple[str, ...], Dict[str, str]] = {(): {}}
    table: Tuple[str, ...] = ()
    for line in (line.strip() for line in split_lines(text)):
        header = re.fullmatch(rf"\[\s*({KEY}(?:\s*\.\s*{KEY})*)\s*\]\s*(#.*)?", line)
        setting = re.fullmatch(rf"{KEY}\s*=\s*(.+)", line)
        if header:
            table = tuple("".join(parts) for parts in re.findall(KEY, header[1]))
            tables.setdefault(table, {})
        elif setting:
            tables[table]["".join(filter(None, setting.groups()[:3]))] = setting[4]
        elif line and not line.startswith("#"):
            raise Unreadable(f"the line {line[:60]!r} is not understood")
    strange = [".".join(name) for name in tables if name and name[0] != "host"]
    if strange:
        raise Unreadable(f"the table {strange[0]} is not understood")
    found = [_endpoint(name[1], settings) for name, settings in tables.items() if len(name) == 2]
    if "server" in tables[()] or not found:
        found.append(_endpoint(_text(tables[()].pop("server", '""')), tables[()]))
    return found


def _endpoint(url: str, settings: Dict[str, str]) -> Endpoint:
    strange = [key for key in settings if key not in (*IGNORED, "skip_verify", "override_path")]
    if strange:
        raise Unreadable(f"the key {strange[0]} is not understood")
    truth = {key: settings.get(key, "false").partition("#")[0].strip() for key in ("skip_verify", "override_path")}
    if not set(truth.values()) <= TRUTH.keys():
        raise Unreadable("neither true nor false")
    return Endpoint(_whole(url), TRUTH[truth["skip_verify"]])


def _whole(url: str) -> str:
    """With a scheme, as containerd reads it."""
    return url if not url or url.startswith("http") else f"https://{url}"


def _text(value: str) -> str:
    found = re.match(TEXT, value)
    if not found:
        raise Unreadable("server is no text")
    return found[1] or found[2] or ""
