"""`casemate_registries`: from where images may be pulled, as controls take it, and what is wrong with it.

A login is in a file of the controller that nobody else reads, one line: user, colon, password. It is never shown.
"""

from __future__ import annotations

import re
import ssl
import stat
import tomllib
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from module_utils.casemate.formats.image_reference import is_below
from module_utils.casemate.k3s import registries as of_k3s

VARIABLE, NAME = "casemate_registries", "__casemate_registries"
"""The input, and the internal variable by which templates know what is made of it."""
UNSET = f"{VARIABLE} is not set, so images of any registry may run"
OWN = "rancher/mirrored-pause"
"""One of K3s' own images, all of which lie below rancher/."""
HUBS = ("index.docker.io", "registry-1.docker.io", "hub.docker.com", "registry.hub.docker.com")
FIX = "Correct it in the inventory"
DECIDED = {
    "private-registry": "K3s would read another file than the one that is made of it",
    "disable-default-registry-endpoint": "what is not listed is never asked",
    "embedded-registry": "nodes would hand each other images of any registry, imported ones too",
}
"""Keys of k3s_node_config that do not go with a list of registries, and why."""

Entry = Mapping[str, Any]


class RegistryError(ValueError):
    """A file that is named cannot be used, and why; never what is in it."""


def prefix(entry: Entry) -> str:
    """What the names of images that an entry lets through begin with."""
    return "/".join(filter(None, (entry["host"], entry.get("path")))) + "/"


def endpoints(entry: Entry) -> list[str]:
    """Who is asked for the images of an entry: its mirrors, else its host itself."""
    own = of_k3s.HUBS_HOST if entry["host"] == of_k3s.HUB else entry["host"]
    return mirrors(entry) or [f"https://{own}"]


def mirrors(entry: Entry) -> list[str]:
    """The mirrors of an entry."""
    return [str(one) for one in entry.get("mirrors") or ()]


def login(entry: Entry) -> tuple[str, str] | None:
    """User and password of an entry; None where it has none. Raises RegistryError."""
    if not entry.get("credentials_file"):
        return None
    path = Path(str(entry["credentials_file"])).expanduser()
    text = _read(path, private=True).rstrip("\n")
    user, colon, password = text.partition(":")
    if not (user and colon and password) or not text.isprintable():
        raise RegistryError(f"{path} is not one line USER:PASSWORD")
    return user, password


def authority(entry: Entry) -> str:
    """The certificates of an entry's own authority; "" where it has none. Raises RegistryError."""
    if not entry.get("ca_file"):
        return ""
    path = Path(str(entry["ca_file"])).expanduser()
    text = _read(path)
    try:
        ssl.create_default_context(cadata=text)
    except ssl.SSLError:
        raise RegistryError(f"{path} has no certificate in PEM") from None
    return text


def _read(path: Path, private: bool = False) -> str:
    try:
        if private and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise RegistryError(f"others may read {path}: chmod 600 {path}")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise RegistryError(f"{path} cannot be read: {why}") from None


def authority_name(entry: Entry) -> str:
    """The name of the file with an entry's authority on nodes."""
    return re.sub(r"[^a-z0-9.-]", "_", str(entry["host"])) + ".pem"


def document(entries: Sequence[Entry], with_logins: bool) -> dict[str, Any]:
    """What registries.yaml says. Raises RegistryError."""
    mirrors = {entry["host"]: {"endpoint": endpoints(entry)} for entry in entries}
    configs: dict[str, Any] = {}
    for entry in entries:
        config: dict[str, Any] = {}
        if entry.get("ca_file"):
            config["tls"] = {"ca_file": f"{of_k3s.AUTHORITIES}/{authority_name(entry)}"}
        known = login(entry) if with_logins else None
        if known:
            config["auth"] = {"username": known[0], "password": known[1]}
        if config or entry.get("credentials_file"):
            configs.update({urlsplit(one).netloc: config for one in endpoints(entry)})
    said: dict[str, Any] = {"mirrors": {**mirrors, of_k3s.ALL: {"endpoint": [of_k3s.NOWHERE]}}}
    return {**said, "configs": configs} if configs else said


def resolved(entries: Sequence[Entry] | None, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What controls and tasks go by, without any login. Raises RegistryError.

    `config` is `k3s_node_config`, of which one key is no secret: `own` is what K3s then writes before the names of its
    own images, with a slash; "" for Docker Hub.
    """
    listed, own = list(entries or ()), (config or {}).get("system-default-registry")
    return {
        "unset": "" if listed else UNSET,
        "own": f"{own}/" if own else "",
        "document": document(listed, with_logins=False) if listed else {},
        "logins": of_k3s.logins(document(listed, with_logins=True)) if listed else {},
        "prefixes": sorted({prefix(entry) for entry in listed}),
        "authorities": {authority_name(entry): authority(entry) for entry in listed if entry.get("ca_file")},
    }


def problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the list, and with what is set beside it."""
    entries = values.get(VARIABLE) or []
    if not entries:
        return []
    config = values.get("k3s_node_config") or {}
    found = [
        f"k3s_node_config.{key} does not go with {VARIABLE}: {why}. Remove it"
        for key, why in DECIDED.items()
        if key in config
    ]
    no_hosts: list[str] = []
    for at, entry in enumerate(entries):
        name = f"{VARIABLE}[{at}]"
        named = [("host", f"https://{entry['host']}"), *(("mirrors", one) for one in mirrors(entry))]
        no_hosts += [
            f"{name}.{key} has {address.partition('://')[2]}, which is no host: {why}. {FIX}"
            for key, address in named
            if (why := _no_host(address))
        ]
        if entry["host"] in HUBS:
            found.append(f"{name}.host is {entry['host']}, by which no image is named. Write {of_k3s.HUB}")
        for key, read in (("credentials_file", login), ("ca_file", authority)):
            try:
                read(entry)
            except RegistryError as why:
                found.append(f"{name}.{key}: {why}. Correct the path or the file")
    found += no_hosts or _contradictions(entries)
    own = config.get("system-default-registry")
    if own and not is_below(f"{own}/{OWN}", map(prefix, entries)):
        found.append(f"k3s_node_config.system-default-registry is {own}, which {VARIABLE} does not list. Add it there")
    for name, text in (values.get("k3s_node_containerd_dropins") or {}).items():
        if _has_registry(str(text)):
            found.append(
                f"k3s_node_containerd_dropins.{name} has settings of registries, which containerd would go by instead "
                f"of {VARIABLE}. Remove them"
            )
    return found


def _no_host(address: str) -> str:
    """Why the host of an address, which has the right characters, is none; "" where it is one."""
    try:
        parts = urlsplit(address)
        if parts.port == 0:
            return "its port is 0; ports are 1 to 65535"
        if parts.netloc.startswith("["):
            ip_address(parts.hostname or "")
    except ValueError as wrong:
        return str(wrong)
    return "there is nothing between two of its dots" if ".." in parts.netloc else ""


def _contradictions(entries: Sequence[Entry]) -> list[str]:
    """Entries that are there twice, or say different things of one host or of one that is asked."""
    found: list[str] = []
    seen: dict[str, Entry] = {}
    of_host: dict[str, list[str]] = {}
    of_asked: dict[str, tuple[Any, Any]] = {}
    for entry in entries:
        if prefix(entry) in seen:
            found.append(f"{VARIABLE} has {prefix(entry)} twice. Remove one of them")
        seen[prefix(entry)] = entry
        if of_host.setdefault(entry["host"], endpoints(entry)) != endpoints(entry):
            found.append(
                f"{VARIABLE} has different mirrors for {entry['host']}. K3s knows one list of them a host. {FIX}"
            )
        proof = (entry.get("ca_file"), entry.get("credentials_file"))
        for netloc in (urlsplit(one).netloc for one in endpoints(entry)):
            if of_asked.setdefault(netloc, proof) != proof:
                found.append(f"{VARIABLE} has different ca_file or credentials_file for {netloc}. {FIX}")
    return found


def _has_registry(text: str) -> bool:
    try:
        plugins = tomllib.loads(text).get("plugins") or {}
    except tomllib.TOMLDecodeError:
        return False  # said elsewhere
    return any(isinstance(plugin, dict) and "registry" in plugin for plugin in plugins.values())


def own_images_problems(values: Mapping[str, Any]) -> list[str]:
    """Why K3s' own pods could not start where the release brings no images, or nothing."""
    entries = values.get(VARIABLE) or []
    registry = (values.get("k3s_node_config") or {}).get("system-default-registry") or of_k3s.HUB
    if not entries or is_below(f"{registry}/{OWN}", map(prefix, entries)):
        return []
    lacks = f"{VARIABLE} does not list {registry}/rancher, from where nodes pull K3s' own images, which every pod needs"
    todo = f"Add {{host: {registry}, path: rancher}}, or put the release's k3s-airgap-images into casemate_artifact_dir"
    return [f"{lacks}, and the release brings none. {todo}"]
