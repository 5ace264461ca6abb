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
from module_utils.casemate.formats.sshd_files import FOLDER, MAIN
from module_utils.casemate.host.machine import Host
from module_utils.casemate.kinds import sshd

KEY = "/etc/ssh/ssh_host_ed25519_key"
SETTINGS: list[sshd.Setting] = [
    {"key": "permitrootlogin", "value": "no"},
    {"key": "hostkey", "value": KEY},
    {"key": "daemon", "value": "current"},
]


PEOPLE: list[sshd.Setting] = [
    {
        "key": "authorizedkeysfile",
        "value": ".ssh/authorized_keys",
        "users": ["alice", "john.doe"],
        "users_value": "/etc/ssh/casemate_people/%u",
    },
    {
        "key": "pubkeyauthoptions",
        "value": "none",
        "users": ["john.doe"],
        "users_value": "verify-required",
        "users_only": True,
    },
    {"key": "usepam", "value": "yes"},
]


def judged(settings: list[sshd.Setting] = SETTINGS) -> dict[str, list[object]]:
    seen, found = sshd.observe(settings, Host()), {}
    for number, setting in enumerate(settings):
        try:
            verdict = sshd.assess(setting, seen[number])
            found[setting["key"]] = [verdict.ok, verdict.reason, verdict.blocked_by]
        except Unavailable as lacking:
            found[setting["key"]] = [None, str(lacking), ""]
    return found


def of_people(host: Host) -> dict[str, object]:
    """Values for some users: none is there yet, then all are, then files of somebody else are read first."""
    shutil.rmtree(FOLDER)
    os.mkdir(FOLDER)
    with open(MAIN, "w", encoding="utf-8") as main_file:
        main_file.write(f"Include {FOLDER}/*.conf\nPort 22\nSubsystem sftp internal-sftp\n")  # neither fits a block
    found: dict[str, object] = {"before": judged(PEOPLE)}
    sshd.enforce(PEOPLE, {0, 1, 2}, host)
    found["after"] = judged(PEOPLE)
    with open(f"{FOLDER}/00-aaa.conf", "w", encoding="utf-8") as other:
        other.write(
            "Match User alice\n  AuthorizedKeysFile /var/tmp/%u\nMatch User john.doe\n  PubkeyAuthOptions none\n"
        )
    found["overridden"] = judged(PEOPLE)
    for case, block in {"from a network": "Address 10.0.0.0/8", "in a group": "Group sudo"}.items():
        with open(f"{FOLDER}/00-aaa.conf", "w", encoding="utf-8") as other:
            other.write(f"Match {block}\n  AuthorizedKeysFile /var/tmp/%u\n  PubkeyAuthOptions none\n")
        found[case] = judged(PEOPLE)
    os.remove(f"{FOLDER}/00-aaa.conf")
    fewer: list[sshd.Setting] = [{**PEOPLE[0], "users": ["john.doe"]}, *PEOPLE[1:]]
    found["one less"] = judged(fewer)
    sshd.enforce(fewer, {0}, host)
    found["without"] = judged(fewer)
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
    found["people"] = of_people(host)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
