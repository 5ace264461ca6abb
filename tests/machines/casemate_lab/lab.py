"""Debian machines to try Casemate on: systemd-nspawn, or QEMU, in a network namespace of their own.

The demo and Molecule use the same functions. A lab named N is the namespace `casemate-N`, a folder with one
state file below the cache, and a folder (`workdir`) with what a controller needs: inventory.yml, keys, known
hosts, and the signed artifact lock. Nothing outside of them changes but four sysctls, which the last lab to go
puts back.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from casemate import ROOT
from casemate_lab import sysctls
from casemate_lab import vm as virtual
from casemate_lab.image import CACHE, LabError, base, locked, missing_tools, packages, run, step

State = dict[str, Any]
VIRTUAL_SECONDS = 300
"""What a machine with a kernel of its own may take to boot, or to reboot."""
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
LABS = CACHE / "labs"
ACCEPTED = {
    "kernel": "sysctls outside net.* belong to the host, and are read-only in a machine",
    "modules": "a machine cannot load kernel modules",
    "apparmor": "the host's kernel may be without it, and a machine cannot load profiles",
    "audit": "the kernel's audit side is not available in a container",
}
ACCEPTED_WITH_DOUBLE = {
    "api_semantics": "tests/double/k3s is a double, not a K3s: it has no API semantics",
    "k3s": "the double runs no components to look at",
}
OF_CLOUD_INIT = (
    "no-port-forwarding,no-agent-forwarding,no-X11-forwarding,"
    'command="echo \'Please login as the user \\"ops\\" rather than the user \\"root\\".\';echo;sleep 10;exit 142" '
)
"""cloud-init's `disable_root_opts`, before a key of root's."""


def allocate(name: str, taken: set[int]) -> int:
    """The third octet of a lab's network 198.18.N.0/24: the same for a name, unless another lab has it."""
    first = zlib.crc32(name.encode()) % 253
    free = [octet for octet in ((first + i) % 253 + 1 for i in range(253)) if octet not in taken]
    if not free:
        raise LabError("all 253 networks of the lab are in use")
    return free[0]


def inventory(state: State, release: Mapping[str, Any]) -> dict[str, Any]:
    """The inventory of a lab as a mapping; `release` is what `_release` returns."""
    work = Path(state["workdir"])
    network = f"198.18.{state['octet']}"
    accepted = ({} if state.get("vm") else ACCEPTED) | ({} if release["real"] else ACCEPTED_WITH_DOUBLE)
    ssh = f"-o UserKnownHostsFile={work}/known_hosts -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    hosts = {name: {"ansible_host": facts["address"]} for name, facts in state["machines"].items()}
    groups = {
        f"k3s_{kind}": {"hosts": {name: made for name, made in hosts.items() if name.startswith(kind)}}
        for kind in ("server", "agent")
    }
    return {
        "all": {
            "vars": {
                "ansible_user": "ops",
                "ansible_ssh_private_key_file": str(work / "id_ed25519"),
                "ansible_ssh_common_args": ssh,
                "ansible_python_interpreter": "/usr/bin/python3",
                "casemate_automation_user": "ops",
                "casemate_admin_sources": [f"{network}.254/32"],
                "casemate_accept_not_evaluated": list(accepted),
                "casemate_k3s_version": release["version"],
                "casemate_artifact_dir": release["dir"],
                "casemate_artifact_lock": str(work / "artifacts.lock.json"),
                "casemate_allowed_signers": str(work / "allowed_signers"),
                "lab_name": state["name"],
                "lab_real_k3s": release["real"],
                "lab_stranger_address": f"{network}.253",
                "lab_person": "alice",
                "lab_person_key": str(work / "alice_ed25519"),
                "lab_person_password_file": str(work / "alice_password"),
                "casemate_people": people(network, work),
            },
            "children": groups,
        }
    }


def token(public: str) -> str:
    """The public key of a token whose key is this one of Ed25519 (PROTOCOL.u2f of OpenSSH)."""
    kind, application = b"sk-ssh-ed25519@openssh.com", b"ssh:"
    key = base64.b64decode(public.split()[1])[-32:]
    made = b"".join(len(part).to_bytes(4, "big") + part for part in (kind, key, application))
    return f"{kind.decode()} {base64.b64encode(made).decode()} casemate-token\n"


def code_secret() -> str:
    """A secret of TOTP as an operator would make one."""
    return base64.b32encode(secrets.token_bytes(20)).decode() + "\n"


def people(network: str, work: Path) -> list[dict[str, Any]]:
    """Alice, who may log in from the lab's network and use sudo with her password; Carol, who may no more; Dave, who
    needs a token that has verified him; and Erin, who needs a code."""
    key = "{{ lookup('ansible.builtin.file', '%s/%s_ed25519.pub') }}"
    alice = f'from="{network}.0/24" ' + key % (work, "alice")
    return [
        {
            "name": "alice",
            "keys": [alice],
            "groups": ["operators"],
            "sudo": "with_password",
            "expires": "2098-12-31",
            "break_glass": True,
        },
        {"name": "carol", "keys": [key % (work, "carol")], "state": "revoked"},
        {"name": "dave", "keys": [key.replace("ed25519", "token") % (work, "dave")], "second_factor": "fido"},
        {
            "name": "erin",
            "keys": [key % (work, "erin")],
            "second_factor": "totp",
            "totp_secret_file": str(work / "erin_totp"),
        },
    ]


def up(
    name: str,
    servers: int = 1,
    agents: int = 1,
    workdir: Path | None = None,
    here: bool = False,
    debian: str = "12",
    vm: bool = False,
) -> Path:
    """Start a lab and return its inventory; one that runs as asked is left alone.

    `here` makes the caller's own network namespace the lab's; with `vm` each machine has a kernel of its own. Raises
    LabError; leaves nothing behind when it fails or is interrupted.
    """
    if fault := missing_tools(vm=vm):
        raise LabError(fault)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
        raise LabError(f"{name!r} is no name for a lab: lower-case letters, digits and dashes, 31 at most")
    folder = LABS / name
    wanted = [f"server{i + 1}" for i in range(servers)] + [f"agent{i + 1}" for i in range(agents)]
    state = load(name)
    if state:
        machines = state["machines"]
        runs = (list(machines), state.get("debian"), state.get("vm", False))
        if runs == (wanted, debian, vm) and all(map(alive, machines.values())):
            return Path(state["workdir"]) / "inventory.yml"
        down(name)
    if (Path("/run/netns") / f"casemate-{name}").exists():
        raise LabError(
            f"the network namespace casemate-{name} is somebody else's: choose another --name, or end its lab"
        )
    if here and not alone():
        raise LabError("--here needs an empty network of its own; start the command with: unshare --net")
    previous = signal.signal(signal.SIGTERM, _terminated)
    try:
        root = base(debian, vm)
        repository = packages(root)
        with locked():
            work = (workdir or folder / "work").resolve()
            octet = allocate(name, {other["octet"] for other in labs()})
            addresses = {n: f"198.18.{octet}.{10 + i}" for i, n in enumerate(wanted)}
            state = {"name": name, "octet": octet, "workdir": str(work), "repository": str(repository)}
            state.update(debian=debian, vm=vm)
            state["machines"] = {n: {"address": a} for n, a in addresses.items()}
            _save(state)
        with step(f"{len(wanted)} machines of lab {name}"):
            _network(state, here)
            if not vm:
                sysctls.set_needed()
            _controller(state)
            for machine in wanted:
                _make(state, machine, root)
                (_boot_virtual if vm else _boot)(state, machine)
            for machine in wanted:
                _await_ssh(state, machine)
                if vm:
                    _ssh(state, machine, "sudo update-grub", check=True)
        with step("artifact lock"):
            release = _release(work)
        text = yaml.safe_dump(inventory(state, release), sort_keys=False)
        why = "".join(f"# {code}: {reason}\n" for code, reason in (ACCEPTED | ACCEPTED_WITH_DOUBLE).items())
        header = "# Made by `casemate lab up`. What may stand in casemate_accept_not_evaluated, and why:\n"
        (work / "inventory.yml").write_text(header + why + text)
    except BaseException:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        down(name)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return work / "inventory.yml"


def _terminated(*_: object) -> None:
    """Let SIGTERM end `up` as an exception does, so that it cleans up behind itself."""
    raise SystemExit(143)


def alone() -> bool:
    """Whether the network namespace of this process is an empty one of its own."""
    return all(": lo:" in link for link in run("ip", "-oneline", "link", "show", "up").splitlines())


def down(name: str) -> bool:
    """Stop a lab and remove all of it but the caches; False when there was none."""
    state = load(name)
    if not state:
        return False
    for machine, facts in state["machines"].items():
        _kill(facts)
        root = _folder(state, machine) / "root"
        while os.path.ismount(root):
            run("umount", root)
        _remove_cgroups(state, machine)
    namespace = Path("/run/netns") / f"casemate-{name}"
    if namespace.exists():
        for pid in run("ip", "netns", "pids", namespace.name).split():  # ssh masters of machines now dead
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "ssh":
                    os.kill(int(pid), signal.SIGTERM)
        with contextlib.suppress(LabError):
            run("ip", "-netns", namespace.name, "link", "delete", "br0")
        run("ip", "netns", "delete", namespace.name)
    shutil.rmtree(LABS / name)
    sysctls.put_back()
    return True


def reboot(name: str, machine: str, hard: bool = False) -> None:
    """Reboot a machine in an orderly way, or cut its power first; returns when it answers over SSH again."""
    state = _existing(name, machine)
    facts = state["machines"][machine]
    with step(f"reboot of {machine}"):
        if hard:  # also one that does not run
            _kill(facts)
            (_boot_virtual if state.get("vm") else _boot)(state, machine)
        elif state.get("vm"):
            boot, end = _ssh(state, machine, BOOT_ID, check=True), time.monotonic() + VIRTUAL_SECONDS
            _ssh(state, machine, "sudo systemctl reboot")
            while _ssh(state, machine, BOOT_ID) in ("", boot) and time.monotonic() < end:
                time.sleep(1)
        else:
            before = _init(facts)
            os.kill(before, signal.SIGRTMIN + 5)
            while _started(before):
                time.sleep(0.2)
        _await_ssh(state, machine)


def enter(name: str) -> list[str]:
    """The words that, before a command, run it inside a lab's network."""
    _existing(name)
    return ["nsenter", f"--net=/run/netns/casemate-{name}", "--"]


def load(name: str) -> State | None:
    """The state of a lab, or None."""
    try:
        state: State = json.loads((LABS / name / "state.json").read_text())
    except FileNotFoundError:
        return None
    return state


def labs() -> list[State]:
    """The states of all labs."""
    return [state for path in sorted(LABS.glob("*/state.json")) if (state := load(path.parent.name))]


def alive(machine: Mapping[str, Any]) -> bool:
    """Whether the process recorded for a machine still runs: its id alone may be another's by now."""
    return bool(machine.get("started")) and _started(machine["pid"]) == machine["started"]


def _existing(name: str, machine: str | None = None) -> State:
    state = load(name)
    if not state:
        raise LabError(f"there is no lab {name}; start it with: casemate lab up --name {name}")
    if machine and machine not in state["machines"]:
        raise LabError(f"lab {name} has no machine {machine}, but {', '.join(state['machines'])}")
    return state


def _save(state: State) -> None:
    folder = LABS / str(state["name"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.tmp").write_text(json.dumps(state, indent=1))
    (folder / "state.tmp").rename(folder / "state.json")


def _folder(state: State, machine: str) -> Path:
    return LABS / str(state["name"]) / "machines" / machine


def _network(state: State, here: bool) -> None:
    name = f"casemate-{state['name']}"
    run("ip", "netns", "attach", name, str(os.getpid())) if here else run("ip", "netns", "add", name)
    inside = ("ip", "-netns", name)
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "link", "add", "br0", "type", "bridge")
    # The controller is .254; .253 is for attacks that come from an address that nobody allowed.
    for address in (f"198.18.{state['octet']}.254/24", f"198.18.{state['octet']}.253/24"):
        run(*inside, "address", "add", address, "dev", "br0")
    run(*inside, "link", "set", "br0", "up")


def _controller(state: State) -> None:
    """Make what the controller holds: keys, and the folder of the inventory."""
    work = Path(state["workdir"])
    work.mkdir(parents=True, exist_ok=True)
    for name in ("id_ed25519", "alice_ed25519", "carol_ed25519", "dave_ed25519", "erin_ed25519", "lock_signer"):
        for old in (work / name, work / f"{name}.pub"):
            old.unlink(missing_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"casemate-{name}", "-f", work / name)
    (work / "dave_token.pub").write_text(token((work / "dave_ed25519.pub").read_text()))
    (work / "known_hosts").write_text("")
    for name, made in {"alice_password": secrets.token_urlsafe(12), "erin_totp": code_secret()}.items():
        secret = work / name
        secret.touch(mode=0o600)
        secret.write_text(made)
    link = work / "group_vars"
    link.unlink(missing_ok=True)
    link.symlink_to(ROOT / "inventory" / ("vm" if state["vm"] else "lab") / "group_vars")


def _make(state: State, machine: str, lower: Path) -> None:
    """Lay a machine's folder over the base and give it its name, address and keys."""
    folder, work = _folder(state, machine), Path(state["workdir"])
    for part in ("upper", "scratch", "root", "rancher", "kubelet"):
        (folder / part).mkdir(parents=True)
    root, address = folder / "root", state["machines"][machine]["address"]
    layers = f"lowerdir={lower},upperdir={folder}/upper,workdir={folder}/scratch"
    run("mount", "-t", "overlay", "overlay", "-o", layers, root)
    network = f"198.18.{state['octet']}"
    hosts = "".join(f"{m['address']} {n}\n" for n, m in state["machines"].items())
    link = f"Address={address}/24\nGateway={network}.254\nLinkLocalAddressing=no\n"
    for name, text in {
        "hostname": f"{machine}\n",
        "hosts": f"127.0.0.1 localhost\n{hosts}",
        "resolv.conf": f"nameserver {network}.254\n",  # nothing answers there: no test may need outside names
        "apt/sources.list": "deb [trusted=yes] file:/srv/apt ./\n",
        "systemd/network/10-host0.network": f"[Match]\nName={'en*' if state['vm'] else 'host0'}\n\n[Network]\n{link}",
    }.items():
        (root / "etc" / name).parent.mkdir(exist_ok=True)
        (root / "etc" / name).write_text(text)
    run("ssh-keygen", "-A", "-f", root)
    with (work / "known_hosts").open("a") as known:
        for public in sorted((root / "etc/ssh").glob("ssh_host_*.pub")):
            known.write(f"{address} {' '.join(public.read_text().split()[:2])}\n")
    # Alice and Carol get keys too: a refused login proves something only where the key would have been taken. Root's is
    # as cloud-init leaves it, which tells people to come as somebody else.
    run("chroot", root, "useradd", "--create-home", "--shell", "/bin/bash", "carol")
    keys = {
        "root": "id_ed25519",
        "home/ops": "id_ed25519",
        "home/alice": "alice_ed25519",
        "home/carol": "carol_ed25519",
    }
    for home, key in keys.items():
        owner = (root / home).stat()
        ssh = root / home / ".ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        (ssh / "authorized_keys").write_text(
            (OF_CLOUD_INIT if home == "root" else "") + (work / f"{key}.pub").read_text()
        )
        for made in (ssh, ssh / "authorized_keys"):
            os.chown(made, owner.st_uid, owner.st_gid)
    password = (work / "alice_password").read_text()
    subprocess.run(["chroot", root, "chpasswd"], input=f"alice:{password}\n", text=True, check=True)
    if state["vm"]:
        virtual.disk(root, Path(state["repository"]), folder / "disk")
        run("umount", root)


def _boot(state: State, machine: str) -> None:
    """Start a machine in the background; after a reboot from inside (133) it is started again.

    A dead machine's link may live for minutes, as long as one of its connections waits for an answer, and would
    block the next boot: it is deleted.
    """
    folder = _folder(state, machine)
    veth = f"vb-c{state['octet']}-{machine}"
    argv = [
        "systemd-nspawn", "--quiet", "-D", folder / "root", f"--machine={veth[3:]}", f"--hostname={machine}",
        "--register=no", "--boot", "--network-bridge=br0", "--capability=all", "--console=pipe",
        "--system-call-filter=@keyring bpf @privileged @mount @raw-io", "--bind=/dev/kmsg",
        "--bind=/dev/fuse", f"--bind-ro={state['repository']}:/srv/apt", f"--bind={folder}/rancher:/var/lib/rancher",
        f"--bind={folder}/kubelet:/var/lib/kubelet",
    ]  # fmt: skip
    groups = _cgroups(state, machine)
    if not Path("/run/systemd/system").exists():  # no systemd here that could make a scope
        argv.append("--keep-unit")
        for group in groups:
            group.mkdir(parents=True, exist_ok=True)
            for item in ("cpuset.cpus", "cpuset.mems"):  # a new cpuset takes nobody before it has both
                for level in (group.parent, group):
                    if (level / item).exists() and not (level / item).read_text().strip():
                        (level / item).write_text((level.parent / item).read_text())
    joins = "".join(f"echo $$ > {group}/cgroup.procs; " for group in groups if "--keep-unit" in argv)
    loop = 'while ip link delete "$0" 2>&-; "$@"; [ $? = 133 ]; do :; done'
    unified = "1" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "0"
    if unified == "0":
        argv.append("SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1")  # systemd 256 and later want to be asked for cgroup v1
    with (folder / "console.log").open("ab") as console:
        child = subprocess.Popen(
            [*enter(str(state["name"])), "sh", "-c", joins + loop, veth, *map(str, argv)],
            stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": unified},
        )  # fmt: skip
    child.returncode = 0  # it outlives us on purpose
    state["machines"][machine].update(pid=child.pid, started=_started(child.pid))
    _save(state)


def _boot_virtual(state: State, machine: str) -> None:
    """Start a machine with a kernel of its own in the background; it reboots by itself."""
    folder, address = _folder(state, machine), str(state["machines"][machine]["address"])
    link, inside = f"vb-c{state['octet']}-{machine}", ("ip", "-netns", f"casemate-{state['name']}")
    with contextlib.suppress(LabError):  # that of the boot before
        run(*inside, "link", "delete", link)
    run(*inside, "tuntap", "add", "dev", link, "mode", "tap")
    run(*inside, "link", "set", link, "master", "br0", "up")
    mac = "52:54:" + ":".join(f"{int(part):02x}" for part in address.split("."))
    argv = virtual.command(folder / "disk", link, mac)
    with (folder / "console.log").open("ab") as console:
        child = subprocess.Popen(
            [*enter(str(state["name"])), *argv], stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            start_new_session=True,
        )  # fmt: skip
    child.returncode = 0  # it outlives us on purpose
    state["machines"][machine].update(pid=child.pid, started=_started(child.pid))
    _save(state)


def _tried(state: State, machine: str, command: str) -> subprocess.CompletedProcess[str]:
    """A command of ops on a machine, over SSH."""
    work = Path(state["workdir"])
    argv = [*enter(str(state["name"])), "ssh", "-F", "none", "-i", str(work / "id_ed25519")]
    argv += ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={10 if state.get('vm') else 2}"]
    argv += ["-o", f"UserKnownHostsFile={work}/known_hosts", f"ops@{state['machines'][machine]['address']}", command]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def _ssh(state: State, machine: str, command: str, check: bool = False) -> str:
    """What a command of ops says; with `check` it has to succeed. Raises LabError."""
    done = _tried(state, machine, command)
    if check and done.returncode:
        raise LabError(f"{machine}: {command} failed ({done.returncode}): {done.stderr.strip()}")
    return done.stdout


def _await_ssh(state: State, machine: str) -> None:
    """Wait until ops can log in; raises LabError with the end of the machine's console."""
    end = time.monotonic() + (VIRTUAL_SECONDS if state.get("vm") else 60)
    while (tried := _tried(state, machine, "true")).returncode:
        if not alive(state["machines"][machine]) or time.monotonic() > end:
            console = (_folder(state, machine) / "console.log").read_text(errors="replace")
            said = f"{tried.stderr.strip()}\nits console ends:\n{console[-1500:]}"
            raise LabError(f"{machine} does not answer: {said}")
        time.sleep(0.3)


def _release(work: Path) -> dict[str, Any]:
    """Find K3s' files or make the double's, write and sign their lock, and say what they are.

    Returns {"version", "dir", "real"}. A real K3s is one in CASEMATE_K3S_ARTIFACTS (~/.cache/casemate/k3s).
    """
    folder = Path(os.environ.get("CASEMATE_K3S_ARTIFACTS", "~/.cache/casemate/k3s")).expanduser()
    real = (folder / "k3s").is_file()
    if real:
        found = re.search(rb"v1\.\d+\.\d+(-rc\d+)?\+k3s\d+", (folder / "k3s").read_bytes())
        if not found:
            raise LabError(f"{folder}/k3s names no K3s version: is it a K3s?")
        version = found[0].decode()
    else:
        folder, version = work / "release", "v1.36.4+k3s1"
        shutil.rmtree(folder, ignore_errors=True)
        run(ROOT / "tests" / "double" / "k3s" / "make_release", folder, version)
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("k3s*"))
        if path.suffix != ".txt"
    }
    provides = ["api_semantics"] if real else []
    lock = {"schema": 1, "default": version, "releases": {version: {"provides": provides, "files": files}}}
    path = work / "artifacts.lock.json"
    path.write_text(json.dumps(lock, indent=2) + "\n")
    path.with_name(f"{path.name}.sig").unlink(missing_ok=True)
    run("ssh-keygen", "-q", "-Y", "sign", "-f", work / "lock_signer", "-n", "casemate-lock", path)
    (work / "allowed_signers").write_text(f"lab@casemate {(work / 'lock_signer.pub').read_text()}")
    return {"version": version, "dir": str(folder), "real": real}


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks after boot; None when there is none, or only its remains."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if facts[0] in "ZX" else int(facts[19])


def _children(pid: int) -> Iterator[int]:
    """All descendants of a process, parents first."""
    with contextlib.suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            yield child
            yield from _children(child)


def _init(machine: Mapping[str, Any]) -> int:
    """The first process of a machine, as the host numbers it; raises LabError when it does not run."""
    for pid in _children(machine["pid"]) if alive(machine) else ():
        spaces = re.search(r"^NSpid:\t(.*)$", Path(f"/proc/{pid}/status").read_text(), re.M)
        if spaces and spaces[1].split()[1:] == ["1"]:
            return pid
    raise LabError("the machine does not run")


def _kill(machine: Mapping[str, Any]) -> None:
    """End a machine at once: first the loop that would start it again, then all below it."""
    if not alive(machine):
        return
    family = [machine["pid"], *_children(machine["pid"])]
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while any(_started(pid) for pid in family) and time.monotonic() < end:
        time.sleep(0.05)


def _cgroups(state: State, machine: str) -> list[Path]:
    """A cgroup of a machine's own below ours in each hierarchy: no two may see each other's services."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        mount = Path("/sys/fs/cgroup") / (names.removeprefix("name=") or "unified")
        if mount.is_dir():
            found.append(mount / path.strip("/") / "casemate-lab" / f"{state['name']}-{machine}")
    return found


def _remove_cgroups(state: State, machine: str) -> None:
    for group in _cgroups(state, machine):
        for folder in [path for path, _, _ in os.walk(str(group), topdown=False)] + [str(group.parent)]:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
