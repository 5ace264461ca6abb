"""Change lines of ours in this machine's PAM by hand, apply, and print what was found. Runs as root in a chroot.

Standard library only, Python 3.9; see test_pam_lines_on_debian.py.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from typing import Any

from module_utils.casemate.formats import pam_profiles
from module_utils.casemate.host.machine import Host
from module_utils.casemate.kinds import pam_line

FILES = [*pam_profiles.COMMON, *pam_profiles.STATE]
AUTH, PROFILES = pam_profiles.COMMON[0], pam_profiles.PROFILES
OURS = re.compile(r"pam_(wheel|succeed_if|google_authenticator|faillock)\.so")


def read(path: str) -> str:
    with open(path, encoding="utf-8") as handle:
        return handle.read()


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(text)


def everything() -> dict[str, str]:
    return {path: read(path) for path in (*FILES, *sorted(Host().glob(f"{PROFILES}/*")))}


def failing(lines: list[Any]) -> set[int]:
    seen = pam_line.observe(lines, Host())
    return {at for at, line in enumerate(lines) if not pam_line.assess(line, seen[at]).ok}


def apply(lines: list[Any]) -> list[str]:
    """Enforce what fails, once, and return the profiles that failed."""
    found = failing(lines)
    if found:
        pam_line.enforce(lines, found, Host(guard=lambda *_: None))
    return sorted(lines[at]["profile"] for at in found)


def by_hand(chosen: random.Random) -> None:
    """Delete some lines of ours, and give some others other options."""
    made = []
    for line in read(AUTH).splitlines(keepends=True):
        does = chosen.choice(["keep", "delete", "add", "less"]) if OURS.search(line) else "keep"
        if does == "add":
            line = f"{line[:-1]} debug\n"
        elif does == "less":
            line = f"{line.rsplit(' ', 1)[0]}\n"
        made += [line] if does != "delete" else []
    write(AUTH, "".join(made))


def weaken_all() -> None:
    text = read(AUTH).replace("deny=5", "deny=500")
    without = [line for line in text.splitlines(keepends=True) if not re.search("pam_wheel.so|quiet service in", line)]
    write(AUTH, "".join(without))
    os.remove(f"{PROFILES}/casemate-su")


def main() -> None:
    with open("/given.json", encoding="utf-8") as handle:
        given = json.load(handle)
    lines = given["lines"]
    found: dict[str, Any] = {"first": apply(lines)}
    right = everything()
    weaken_all()
    found["weakened"] = apply(lines)
    found["healed"] = everything() == right
    found["not healed"] = []
    for seed in range(given["seeds"]):
        by_hand(random.Random(seed))
        changed = read(AUTH)
        failed = apply(lines)
        if everything() != right or bool(failed) != (changed != right[AUTH]):
            found["not healed"].append({"seed": seed, "failed": failed, "changed": changed, "healed": read(AUTH)})
    write(AUTH, re.sub(r"(pam_unix\.so.*) nullok", r"\1", read(AUTH)).replace("preauth", "preauth debug"))
    found["beside"] = apply(lines)
    found["of the administrator"] = [line for line in read(AUTH).splitlines() if re.search("pam_unix|preauth", line)]
    pam_line.take_back(lines[:2], lines[2:], Host(guard=lambda *_: None))
    there = {path.rsplit("/", 1)[1] for path in Host().glob(f"{PROFILES}/casemate-*")}
    found["taken back"] = sorted({line["profile"] for line in lines} - there)
    saved = read(f"{pam_profiles.SAVED}/auth") + read(f"{pam_profiles.SAVED}/password")
    found["kept"] = sorted(re.findall(r"(?m)^Module: (casemate-.*)", saved))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
