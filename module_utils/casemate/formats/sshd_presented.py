"""The keys by which sshd proves the host to whoever logs in next."""

from __future__ import annotations

from ..host.machine import Host
from .sshd_files import connections, directives, effective


def presented(host: Host) -> list[str]:
    """`type base64` of each host key that sshd's files name and that is there; none where sshd cannot read them."""
    _, _, plain = connections(host, directives(host))[0]
    try:
        paths = effective(host, (), plain).get("hostkey", "").split()
    except OSError:
        return []
    asked = (host.run(["ssh-keygen", "-y", "-P", "", "-f", host.path(path)]) for path in paths)
    return [" ".join(done.out.split()[:2]) for done in asked if done.rc == 0]
