"""Measure Casemate against the least that could do the job, in one run on one fresh machine of the lab.

check and second apply are divided by `ansible -m ping`; the first provisioning by a person's way to the same files:
a shell script that copies the configuration as it came out, installs the same packages, copies the same K3s and
starts the units, over ssh. That person verifies nothing and types infinitely fast. Beside the wall time stands what
the controller's processes took of its CPUs.

With DEV_SEC (see `dev_sec.py`) the CPU of both applies, K3s and its checks included, is compared with that of dev-sec's
roles, which harden the system and sshd only.
"""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from bench.costs import Cost, measure
from bench.dev_sec import harden

LAB = "bench"
GOALS = {"check": 1.5, "second apply": 4.0, "first provisioning": 1.5}
DEV_SEC_GOALS = {"first apply": 0.25, "second apply": 0.1}
"""Of the controller's CPU that dev-sec's roles take for the same run, at most."""
MARK = "/run/casemate-bench"
OWNED = (
    f"find /etc /usr/local /var/lib/rancher/k3s/agent/etc /var/lib/rancher/k3s/server/manifests -newer {MARK} -type f "
    "! -name k3s ! -name '*.cache' ! -path '*/tls/*' 2>/dev/null"
)
BY_HAND = r"""
set -e
export DEBIAN_FRONTEND=noninteractive
[ -z "$1" ] || { apt-get -qq update; apt-get -qq install -y --no-install-recommends $1 >/dev/null; }
tar -xpPf /var/tmp/files.tar
if [ -f /var/tmp/k3s ]; then
  install -m 0755 /var/tmp/k3s /usr/local/bin/k3s
  if [ -f /var/tmp/images.tar.zst ]; then
    install -D -m 0600 /var/tmp/images.tar.zst /var/lib/rancher/k3s/agent/images/images.tar.zst
  fi
fi
systemctl daemon-reload
systemctl reload ssh
for unit in $2; do systemctl enable --quiet --now "$unit"; done
[ -f /var/tmp/k3s ] || exit 0
if [ "$3" = real ]; then ready() { k3s kubectl get nodes 2>/dev/null | grep -qw Ready; }
else ready() { bash -c '</dev/tcp/127.0.0.1/6443' 2>/dev/null; }; fi
until ready; do sleep 0.2; done
"""


class Machine:
    """One machine of the lab, as a person with a shell sees it."""

    def __init__(self) -> None:
        made = subprocess.run(
            ["casemate", "lab", "up", "--name", LAB, "--servers", "1", "--agents", "0"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.inventory = Path(made.stdout.strip().splitlines()[-1])
        values = yaml.safe_load(self.inventory.read_text())["all"]
        self.artifacts = Path(values["vars"]["casemate_artifact_dir"])
        self.real = bool(values["vars"].get("lab_real_k3s"))
        (host,) = values["children"]["k3s_server"]["hosts"].values()
        options = shlex.split(values["vars"]["ansible_ssh_common_args"])
        self.ssh = ["-q", "-i", values["vars"]["ansible_ssh_private_key_file"], *options]
        self.login = f"{values['vars']['ansible_user']}@{host['ansible_host']}"

    def inside(self, *command: str) -> list[str]:
        """A command of the controller, within the lab's network."""
        return ["casemate", "lab", "exec", LAB, *command]

    def root(self, script: str, *arguments: str, data: bytes = b"") -> bytes:
        """Run a script as root there, with `data` as its input, and return what it prints."""
        remote = shlex.join(["sudo", "sh", "-c", script, "sh", *arguments])
        command = self.inside("ssh", *self.ssh, self.login, remote)
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        if done.returncode:
            sys.exit(f"by hand: {done.returncode}: {done.stderr.decode()[-2000:]}")
        return done.stdout


def packages(machine: Machine) -> set[str]:
    """The names of the packages that are installed there."""
    return set(machine.root("dpkg-query -W -f '${Package}\\n'").decode().split())


def units(machine: Machine) -> set[str]:
    """The units that are enabled there."""
    listed = machine.root("systemctl list-unit-files --state=enabled --no-legend --plain").decode()
    return {line.split()[0] for line in listed.splitlines() if line.split()[0].endswith((".service", ".timer"))}


def by_hand(machine: Machine, files: bytes, wanted: Sequence[str], enabled: Sequence[str], images: bool) -> Cost:
    """Provision by a plain script over ssh and return what it took."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    machine.root("cat > /var/tmp/files.tar", data=files)
    machine.root("cat > /var/tmp/k3s", data=(machine.artifacts / "k3s").read_bytes())
    if images:
        found = next(machine.artifacts.glob("k3s-airgap-images-*.tar.zst"))
        machine.root("cat > /var/tmp/images.tar.zst", data=found.read_bytes())
    machine.root(BY_HAND, " ".join(wanted), " ".join(enabled), "real" if machine.real else "double")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.monotonic() - start, cpu)


def line(name: str, cost: Cost, base: Cost, base_name: str) -> bool:
    """Print one ratio; whether it is within its goal."""
    ratio, goal = cost.wall / base.wall, GOALS[name]
    verdict = "ok" if ratio <= goal else "over the goal"
    print(
        f"{name:20} {cost.wall:7.2f} s  ÷ {base_name} {base.wall:6.2f} s = {ratio:5.2f}  (goal {goal}: {verdict})"
        f"   controller CPU {cost.cpu:6.2f} s ÷ {base.cpu:5.2f} s"
    )
    return ratio <= goal


def beside_dev_sec(applies: Sequence[Cost], collections: Path) -> bool:
    """Print what both applies cost beside dev-sec's on a machine of its own; whether they are within their goals."""
    machine = Machine()
    good = True
    for (name, goal), ours, theirs in zip(
        DEV_SEC_GOALS.items(), applies, harden(machine.inside, machine.inventory, collections), strict=True
    ):
        ratio = ours.cpu / theirs.cpu
        good = good and ratio <= goal
        print(
            f"{name:20} controller CPU {ours.cpu:6.2f} s ÷ dev-sec {theirs.cpu:6.2f} s = {ratio:.2f}  "
            f"(goal {goal}: {'ok' if ratio <= goal else 'over the goal'})   "
            f"on the clock {ours.wall:.0f} s and {theirs.wall:.0f} s"
        )
    return good


def main() -> int:
    """Measure, print and return 0 when every ratio is within its goal."""
    os.environ.setdefault("ANSIBLE_CONFIG", str(Path(__file__).parents[2] / "ansible.cfg"))
    try:
        machine = Machine()
        report = ["--format", f"json:{machine.inventory.parent}/bench.json"]
        casemate = ["casemate", "{}", "-i", str(machine.inventory), *report]

        def verb(name: str) -> list[str]:
            return machine.inside(*(part.format(name) for part in casemate))

        machine.root(f"touch {MARK}; sleep 1.1")
        installed, enabled = packages(machine), units(machine)
        first = measure(verb("apply"), codes=(0, 2))
        second = measure(verb("apply"), 3, (0, 2))
        check = measure(verb("check"), 3, (0, 2))
        ping = measure(machine.inside("ansible", "-i", str(machine.inventory), "all", "-m", "ansible.builtin.ping"), 3)
        wanted, more = sorted(packages(machine) - installed), sorted(units(machine) - enabled)
        files = machine.root(f"{OWNED} | tar -cPf - -T -")
        images = bool(machine.root("ls /var/lib/rancher/k3s/agent/images 2>/dev/null || true").strip())
        subprocess.run(["casemate", "lab", "down", "--name", LAB], check=True, stdout=subprocess.DEVNULL)
        hand = by_hand(Machine(), files, wanted, more, images)
        subprocess.run(["casemate", "lab", "down", "--name", LAB], check=True, stdout=subprocess.DEVNULL)
        collections = os.environ.get("DEV_SEC")
        good = [not collections or beside_dev_sec((first, second), Path(collections))]
    finally:
        subprocess.run(["casemate", "lab", "down", "--name", LAB], check=False, stdout=subprocess.DEVNULL)
    print(f"by hand: {len(wanted)} packages, {len(files) >> 10} KiB of files, units {', '.join(more) or '-'}")
    good += [line("check", check, ping, "ping"), line("second apply", second, ping, "ping")]
    good.append(line("first provisioning", first, hand, "by hand"))
    print(f"load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    return 0 if all(good) else 2


if __name__ == "__main__":
    sys.exit(main())
