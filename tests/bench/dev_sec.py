"""What dev-sec's roles for the system and for sshd cost the controller, on a fresh machine of the lab like Casemate's.

The roles stay out of the repository: DEV_SEC names a folder with `ansible_collections`, where devsec.hardening and the
collections that it asks for lie. They run with Casemate's ansible.cfg, so with pipelining and one connection for each
host, which is faster than Ansible's defaults.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.costs import Cost, measure

ROLES = ("devsec.hardening.os_hardening", "devsec.hardening.ssh_hardening")
VARIABLES = {"os_auth_pam_passwdqc_enable": False}
"""Without its package for passwords, which the lab's package index does not have: dev-sec has a little less to do."""


def harden(inside: Callable[..., Sequence[str]], inventory: Path, collections: Path) -> tuple[Cost, Cost]:
    """Apply both roles twice and return what each time cost; exits with Ansible's output when one ends with an error.

    `inside` makes of a command one that runs in the lab's network.
    """
    roles = [{"role": role} for role in ROLES]
    play = [{"hosts": "all", "become": True, "gather_facts": True, "vars": VARIABLES, "roles": roles}]
    with tempfile.TemporaryDirectory() as folder:
        playbook = Path(folder, "dev_sec.yml")
        playbook.write_text(json.dumps(play))
        setting = f"ANSIBLE_COLLECTIONS_PATH={collections.resolve()}"
        command = inside("env", setting, "ansible-playbook", "-i", str(inventory), str(playbook))
        return measure(command), measure(command)
