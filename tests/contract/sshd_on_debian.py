"""Judge sshd's files on this machine for each case of given.json, and print what was seen. Runs as root in a chroot.

Standard library only, Python 3.9; see test_sshd_on_debian.py.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.formats import sshd_keys
from module_utils.casemate.formats.sshd_files import MAIN
from module_utils.casemate.host.machine import Host
from module_utils.casemate.kinds import sshd

KEY = "/etc/ssh/ssh_host_ed25519_key"
SETTINGS: list[sshd.Setting] = [
    {"key": "permitrootlogin", "value": "no"},
    {"key": "hostkey", "value": KEY},
    {"key": "daemon", "value": "current"},
]


def judged() -> dict[str, list[object]]:
    seen, found = sshd.observe(SETTINGS, Host()), {}
    for number, setting in enumerate(SETTINGS):
        try:
            verdict = sshd.assess(setting, seen[number])
            found[setting["key"]] = [verdict.ok, verdict.reason, verdict.blocked_by]
        except Unavailable as lacking:
            found[setting["key"]] = [None, str(lacking), ""]
    return found


def main() -> None:
    with open("/given.json", encoding="utf-8") as handle:
        given = json.load(handle)
    host = Host(guard=lambda *_: None)
    found: dict[str, object] = {}
    sshd_keys.give(host, KEY)
    for name, block in given["blocks"].items():
        with open(MAIN, "w", encoding="utf-8") as main_file:
            main_file.write("Include /etc/ssh/sshd_config.d/*.conf\n")
        sshd.enforce(SETTINGS, {0}, host)
        with open(MAIN, "a", encoding="utf-8") as main_file:
            main_file.write(f"Match {block}\n  PermitRootLogin yes\n")
        found[name] = judged()
    with open(MAIN, "w", encoding="utf-8") as main_file:
        main_file.write("Include /etc/ssh/sshd_config.d/*.conf\n")
    found["clean"] = judged()
    shutil.rmtree("/run/sshd", ignore_errors=True)
    found["no /run/sshd"] = judged()
    os.remove(KEY)
    found["no key"] = judged()
    sshd.enforce(SETTINGS, {1}, host)
    found["key made"] = judged()
    found["left behind"] = {"/run/sshd": os.path.exists("/run/sshd"), "/tmp": os.listdir("/tmp")}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
