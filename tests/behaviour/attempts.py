"""What our modules do with spoiled files. All cases are tried by one Ansible, for each start of it takes seconds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testinfra.host import Host

from casemate.run import runner

from .conftest import is_double, unit
from .planted import STORY, folder, planted

WRAPPER = "/usr/local/bin/k3s"
SPOILED = {
    "one flipped byte": "printf '\\001' | dd of=genuine bs=1 seek=4096 conv=notrunc status=none",
    "truncated": "truncate -s -1 genuine",
    "empty": ": > genuine",
    "another program": "cp /bin/true genuine",
}
DOWNGRADE, UNLOCKED, GENUINE = "downgrade", "without a digest", "genuine"
ASKED: dict[str, dict[str, str]] = {
    **{case: {} for case in (*SPOILED, GENUINE)},
    DOWNGRADE: {"version": "v1.29.9+k3s9"},
    UNLOCKED: {"sha256": ""},
}
"""By case, what the module is asked that differs from the locked bytes of a new release."""
SIZE = 1 << 20
DIGEST = hashlib.sha256((b"casemate\n" * SIZE)[:SIZE]).hexdigest()
"""Of what stands in for the genuine file: the digests of a megabyte and of a release are compared alike."""

# In each case's folder lies an installed K3s of an older kind, which tells when it is run, and the genuine file.
INSTALLED = '#!/bin/sh\ntouch "$(dirname "$0")/run"\n# -X github.com/k3s-io/k3s/pkg/version.Version=v1.30.0+k3s1 -s\n'
PREPARED = f"printf %s {shlex.quote(INSTALLED)} > k3s; chmod 755 k3s; yes casemate | head -c {SIZE} > genuine"


@dataclass(frozen=True)
class Attempts:
    """What came of each case on a machine: the module's answers, in order, and the folder as they left it."""

    host: Host
    folder: str
    answers: dict[str, list[dict[str, Any]]]
    planted: dict[str, Any] | None
    """The finding about K3s' unpacked files while `casemate-attack` lies among them; a double unpacks nothing."""

    def left(self, case: str) -> str:
        return f"{self.folder}/{case}"


@contextlib.contextmanager
def attempts(host: Host, inventory: str, private: Path) -> Iterator[Attempts]:
    """Try every case on a machine; what was put there for it is gone afterwards."""
    with folder(host, seconds=STORY) as place:
        each = [
            f"mkdir {shlex.quote(case)} && cd {shlex.quote(case)} && {PREPARED} && {SPOILED.get(case, ':')}"
            for case in ASKED
        ]
        host.check_output("sh -c %s", f"cd {place} && " + " && ".join(f"({work})" for work in each))
        tries = [*ASKED, GENUINE]
        with contextlib.nullcontext() if is_double(host) else among_unpacked(host) as task:
            tasks = [_install(f"{place}/{case}", ASKED[case]) for case in tries] + ([task] if task else [])
            answers = asked(host, inventory, tasks, private)
        by_case = {
            case: [said for of, said in zip(tries, answers[: len(tries)], strict=True) if of == case] for case in ASKED
        }
        yield Attempts(host, place, by_case, answers[-1]["findings"][0] if task else None)


@contextlib.contextmanager
def among_unpacked(host: Host) -> Iterator[dict[str, Any]]:
    """A file among those that K3s has unpacked, and the task that judges them."""
    asked = "readlink /proc/$(systemctl show --value -p MainPID %s)/exe && sha256sum %s && uname -m"
    exe, summed, machine = host.check_output(asked, unit(host), WRAPPER).splitlines()
    file = exe.rpartition("/")[0] + "/casemate-attack"
    setting = {"kind": "artifact", "aspect": "unpacked", "enforced": False, "digests": {machine: summed.split()[0]}}
    control = {
        "id": "NODE-ATTACK-JUDGED", "title": "Attack", "why": "An attack on this", "severity": "high",
        "level": "baseline", "applies_to": ["node"], "mitigations": ["T7.2"], "setting": setting,
    }  # fmt: skip
    with planted(host, f"touch {file}", f"rm -f {file}"):
        yield {"k3s_controls": {"controls": {"k3s_node": [control]}, "scan": True}, "check_mode": True}


def _install(folder: str, differing: dict[str, str]) -> dict[str, Any]:
    given = {"name": "k3s", "version": "v99.0.0+k3s1", "sha256": DIGEST}
    return {"k3s_artifact": {**given, "dest": f"{folder}/k3s", "src": f"{folder}/genuine", **differing}}


def asked(host: Host, inventory: str, tasks: list[dict[str, Any]], private: Path) -> list[dict[str, Any]]:
    """What Ansible's tasks return on a machine, whether they fail or not."""
    name = host.backend.host
    kept = [{**task, "register": f"answer_{number}", "ignore_errors": True} for number, task in enumerate(tasks)]
    told = {"ansible.builtin.debug": {"msg": f"{{{{ [{', '.join(one['register'] for one in kept)}] }}}}"}}
    playbook = private / "attempts.yml"
    playbook.write_text(json.dumps([{"hosts": name, "become": True, "gather_facts": False, "tasks": [*kept, told]}]))
    run = runner.play(str(playbook), (inventory,))
    if run.cancelled:
        raise KeyboardInterrupt
    if "msg" not in run.results.get(name, {}):
        raise RuntimeError("; ".join([*run.errors, *(message for message, _ in run.messages())]))
    answers: list[dict[str, Any]] = run.results[name]["msg"]
    return answers
