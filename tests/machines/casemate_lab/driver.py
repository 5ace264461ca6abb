"""Molecule's driver: its playbooks run in the network of the lab's machines, in whatever shell the command is typed.

Molecule asks the driver before each playbook. The first one of a story finds no lab: then this process leaves for a
network of its own, in which the lab is made. A later command (`molecule verify`) enters the one that is there.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from molecule.driver.delegated import Delegated
from molecule.exceptions import MoleculeError

from casemate_lab import lab
from casemate_lab.image import RELEASES, LabError, base, missing_tools, packages

NEW_NETWORK = 0x40000000
"""CLONE_NEWNET of unshare(2) and setns(2); Python has them from 3.12 on."""


class Lab(Delegated):  # type: ignore[misc]
    """The default driver, whose `create` and `destroy` are playbooks, in the right network."""

    title = "Machines of casemate lab, in a network of their own"

    def __init__(self, config: object = None) -> None:
        """Take the name by which molecule.yml knows it."""
        super().__init__(config)
        self._name = "molecule-casemate"

    def schema_file(self) -> None:
        """None: that of the default driver allows no other name."""

    def sanity_checks(self) -> None:
        """Be in the lab's network, or in an empty one where there is no lab yet."""
        there = Path("/run/netns") / f"casemate-molecule-{self._config.scenario.name}"
        try:
            if there.exists():
                with there.open() as network:
                    _call("setns", network.fileno(), NEW_NETWORK)
            elif not lab.alone():
                if fault := missing_tools():
                    raise LabError(fault)
                for release in RELEASES:  # while there is a network
                    packages(base(release))
                _call("unshare", NEW_NETWORK)
        except (LabError, OSError) as failed:
            raise MoleculeError(f"The machines of the lab need root and a network of their own: {failed}") from failed


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
