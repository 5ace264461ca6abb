"""What the machine is and what it lacks, by which controls are chosen. Decided by what works here."""

from __future__ import annotations

import os
import re

from ..host import audit
from ..host.machine import Host


def system(host: Host) -> str:
    """The system and its version, such as debian12, which a control may be for (`os`)."""
    release = host.cached("os-release", lambda: host.text("/etc/os-release") or "")
    fields: dict[str, str] = dict(re.findall(r"^(ID|VERSION_ID)=[\"']?(.*?)[\"']?$", release, re.MULTILINE))
    return fields.get("ID", "") + fields.get("VERSION_ID", "")


def capabilities(host: Host) -> dict[str, str]:
    """What this machine lacks, as capability -> why; whatever is not named here is there.

    Decided by what works here (is this writable, is this loaded), never by "it is a container".
    """
    lacking: dict[str, str] = {}
    if not os.access(host.path("/proc/sys/kernel/panic"), os.W_OK):
        lacking["kernel"] = "/proc/sys is read-only here; the machine's own kernel settings are its host's"
    if not os.path.isdir(host.path("/lib/modules/" + os.uname().release)):
        lacking["modules"] = "the running kernel's modules are not on this machine"
    if (host.text("/sys/module/apparmor/parameters/enabled") or "").strip() != "Y":
        lacking["apparmor"] = "the running kernel has no AppArmor"
    unaudited = audit.status().lacks
    if unaudited:
        lacking["audit"] = unaudited
    if "api_semantics" not in host.context.get("capabilities", ("api_semantics",)):
        lacking["api_semantics"] = "the installed release is a double without a real API server, kubelet or etcd"
    return lacking
