"""Packages that want a security update, that are kept from updates, or that are not completely installed.

All by the host's own means and without a network. Which holes an update closes is told where the operator laid down
the data of Debian's security tracker (https://security-tracker.debian.org/tracker/data/json) on the host. Sources:
apt-get(8), dpkg(1).
"""

from __future__ import annotations

import json
import re
import time
from typing import Any, Dict, List, Mapping

from ..core.verdict import Unavailable
from ..formats import dpkg_status
from ..formats.deb_version import older
from ..formats.dpkg_status import Package, Update, known
from ..host.machine import Host

INDEXES = "/var/lib/apt/lists/*_*"
ASKED = ("/var/lib/apt/lists/partial", "/var/lib/apt/periodic/update-success-stamp")
"""What changes whenever apt asked its sources for news, also where there were none."""
OLD = 7
"""Days after which an index of packages says nothing of what is pending today."""
SIMULATED = ["apt-get", "-s", "-q", "-o", "Debug::NoLocking=1", "--ignore-hold", "dist-upgrade"]
PER_DAY = {"": 1, "d": 1, "h": 24, "m": 24 * 60, "s": 24 * 60 * 60}
"""Unit of an interval of APT::Periodic -> how many of them are a day (apt.systemd.daily, check_stamp)."""
YES = ("true", "yes", "1", "on", "with", "enable")
"""What apt takes for true (strutl.cc, StringToBool)."""
SELDOM = {
    "Download-Only": "updates are fetched and never installed",
    "InstallOnShutdown": "updates wait for a shutdown, which a node seldom has",
}
"""Options of unattended-upgrades by which no update is installed by itself."""
SETTLED = ("installed", "config-files", "not-installed", "triggers-pending", "triggers-awaited")


def pending(setting: Mapping[str, Any], host: Host) -> Dict[str, str]:
    """Package -> the security update that it waits for. Raises Unavailable where no index of packages tells.

    An index that is too old fails: nobody knows what it lacks.
    """
    indexes = host.glob(INDEXES)
    if not indexes:
        raise Unavailable("package_index", "there is no index of packages on this machine; by hand: apt-get update")
    stamps = [found.st_ctime for found in map(host.stat, [*ASKED, *indexes]) if found]
    days = int((time.time() - max(stamps)) / 86400)
    if days > OLD:
        return {"index": f"the index of packages is {days} days old, so nobody knows; by hand: apt-get update"}
    asked = host.run(SIMULATED, timeout=120)
    if asked.rc != 0:
        raise OSError(f"apt-get cannot say what it would update: {(asked.err or asked.out).strip()[:200]}")
    found = [u for u in dpkg_status.updates(asked.out) if any(re.search("(?i)security", a) for a in u.archives)]
    holes = _holes(found, setting.get("tracker", ""), host) if found else {}
    told = {update.name: f"{update.now} waits for {update.then}{holes.get(update.name, '')}" for update in found}
    return {name: f"{said}; by hand: apt-get install --only-upgrade {name}" for name, said in told.items()}


def _holes(found: List[Update], path: str, host: Host) -> Dict[str, str]:
    """Package -> the CVEs that its update closes, in words, where Debian's data is there and names them."""
    text = host.text(path) if path else None
    if text is None:
        return {}
    codename = re.search(r"(?m)^VERSION_CODENAME=(\w+)", host.text("/etc/os-release") or "")
    sources = {package.name: package.source for package in known(host)}
    try:
        data = json.loads(text)
        return {update.name: _closed(update, data.get(sources[update.name]), codename) for update in found}
    except (ValueError, AttributeError, TypeError, KeyError) as odd:
        raise OSError(f"{path} is not the data of Debian's security tracker: {odd}") from odd


def _closed(update: Update, holes: Any, codename: Any) -> str:
    release = codename[1] if codename else ""
    fixed = {cve: one["releases"].get(release, {}).get("fixed_version", "") for cve, one in (holes or {}).items()}
    # A version of 0 says that this release never had the hole.
    closed = [
        cve
        for cve, version in fixed.items()
        if version not in ("", "0") and older(update.now, version) and not older(update.then, version)
    ]
    return f", which closes {', '.join(sorted(closed))}" if closed else ""


def automatic(setting: Mapping[str, Any], host: Host) -> Dict[str, str]:
    """What keeps updates of the declared origins from being installed, as apt reads all of its configuration.

    What follows from a file of ours that is not as it should be is told by that file's control alone.
    """
    if setting.get("file") in host.failing_files:
        return {}
    asked = host.run(["apt-config", "dump"])
    if asked.rc != 0:
        raise OSError(f"apt-config cannot say how apt is set: {(asked.err or asked.out).strip()[:200]}")
    lines: Dict[str, List[str]] = {}
    for name, value in re.findall(r'(?m)^([^\s:]\S*?)(?:::)? "(.*)";$', asked.out):
        lines.setdefault(name, []).append(value)
    last = {name: values[-1] for name, values in lines.items()}
    found = {}
    for name in ("APT::Periodic::Enable", "APT::Periodic::Update-Package-Lists", "APT::Periodic::Unattended-Upgrade"):
        value = last.get(name, "1" if name.endswith("Enable") else "0")
        if value == "0":
            found[name] = "it is off, so no update comes by itself"
        elif not _daily(value):
            found[name] = f"it is {value}, so updates come more seldom than every day"
    for name, does in SELDOM.items():
        if last.get(f"Unattended-Upgrade::{name}", "").lower() in YES:
            found[f"Unattended-Upgrade::{name}"] = does
    weekdays = ", ".join(filter(None, lines.get("Unattended-Upgrade::Update-Days", [])))
    if weekdays:
        found["Unattended-Upgrade::Update-Days"] = f"it has {weekdays}, so none comes on other days"
    origins = lines.get("Unattended-Upgrade::Origins-Pattern", [])
    for origin in setting.get("origins", ()):
        if origin not in origins:
            found[origin] = "this origin is not among those of Unattended-Upgrade::Origins-Pattern"
    for package in filter(None, lines.get("Unattended-Upgrade::Package-Blacklist", [])):
        found[package] = "Unattended-Upgrade::Package-Blacklist keeps updates from it"
    only = ", ".join(filter(None, lines.get("Unattended-Upgrade::Package-Whitelist", [])))
    if only:
        found["Unattended-Upgrade::Package-Whitelist"] = f"it has {only}, so no other package gets updates"
    if last.get("Unattended-Upgrade::Automatic-Reboot", "false").lower() in YES:
        found["Unattended-Upgrade::Automatic-Reboot"] = "a node would reboot without asking the cluster"
    by_hand = "take that out of the file below /etc/apt/apt.conf.d that says so"
    return {name: f"{why}; {by_hand}" for name, why in found.items()}


def _daily(interval: str) -> bool:
    """Whether apt does something once a day or more often: a number of days, or with a unit of its own, or always."""
    parts = re.fullmatch(r"([0-9]+)([smhd]?)", interval)
    return not parts or int(parts[1]) <= PER_DAY[parts[2]]


def held(setting: Mapping[str, Any], host: Host) -> Dict[str, str]:
    """Package -> that it is on hold, so that no update reaches it."""
    found = [package for package in known(host) if package.wanted == "hold" and package.state != "not-installed"]
    return {one.name: f"no update reaches it; by hand: apt-mark unhold {one.name}" for one in found}


def broken(setting: Mapping[str, Any], host: Host) -> Dict[str, str]:
    """Package -> the state in which its installation ended."""
    found = [package for package in known(host) if package.state not in SETTLED or package.error != "ok"]
    return {one.name: f"{_state(one)}; by hand: dpkg --configure -a, then apt-get -f install" for one in found}


def _state(package: Package) -> str:
    return package.state if package.error == "ok" else f"{package.state}, {package.error}"
