"""The families of drifts on hosts: those of files, as the folder `families` declares them, and a few others."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import planting
from .drift import Drift, Family, a_name
from .planting import Tree

CACHE = "/etc/ld.so.cache"
SYSTEM = frozenset({"T1.2", "T1.5", "T1.6", "T4.2", "T4.5"})
NETWORK = frozenset({"T1.2", "T1.4", "T1.5", "T2.3", "T3.3", "T4.2", "T5.2"})


@dataclass
class Files:
    """Places of a family, and what is put there. {name} is drawn."""

    name: str
    undermines: list[str]
    texts: Sequence[str] = ()
    new: Sequence[str] = ()
    """Files that may be planted; as links too where `links`, and those in `hidden` with a dot before their name."""
    hidden: Sequence[str] = ()
    existing: Sequence[str] = ()
    """Patterns of files that a text may be appended to, or be put in over the end with size and time as before."""
    appended: Sequence[str] = ()
    """Those that it is only appended to, since nobody would get in any more without their end."""
    programs: Sequence[str] = ()
    """Patterns of packages' programs whose last byte may be another one, with size and time as before."""
    writable: Sequence[str] = ()
    """Patterns of files that may be made writable for everybody."""
    mode: str = "0644"
    links: bool = True

    def every(self, rng: random.Random, tree: Tree) -> Iterator[Drift]:
        make = functools.partial(Drift, self.name)
        mode = int(self.mode, 8)
        for pattern in (*self.new, *self.hidden):
            for text in self.texts:
                path = filled(pattern, rng, hidden=pattern in self.hidden)
                if tree.state(path) is None:
                    plant = functools.partial(planting.planted, tree, path, text.encode(), mode)
                    yield make("hidden" if pattern in self.hidden else "planted", (path,), plant)
            path, target = filled(pattern, rng, hidden=pattern in self.hidden), f"/var/lib/{a_name(rng)}"
            if self.links and tree.state(path) is None:
                plant = functools.partial(planting.linked, tree, path, target, rng.choice(self.texts).encode(), mode)
                yield make("link", (path, target), plant)
        for path in tree.files(*self.existing, *self.appended):
            data = rng.choice(self.texts).encode()
            yield make("appended", (path,), functools.partial(planting.appended, tree, path, data))
            if path in tree.files(*self.existing) and len(tree.read(path)) > len(data) + 1:
                over = functools.partial(planting.disguised, tree, path, b"\n" + data)
                yield make("size and time kept", (path,), over)
        for path in sample(rng, tree.files(*self.programs)):
            if data := tree.read(path):
                last = bytes([data[-1] ^ 1])
                yield make("last byte", (path,), functools.partial(planting.disguised, tree, path, last))
        for path in sample(rng, tree.files(*self.writable)):
            yield make("writable", (path,), functools.partial(planting.marked, tree, path, 0o002))

    def family(self) -> Family:
        return Family(self.name, frozenset(self.undermines), self.every)


def filled(pattern: str, rng: random.Random, hidden: bool = False) -> str:
    """A place of its own, where this machine's kernel and Python look."""
    minor = str(sys.version_info.minor)
    name = f"{'.' * hidden}{a_name(rng)}"
    return pattern.replace("{name}", name).replace("{kernel}", os.uname().release).replace("{minor}", minor)


def sample(rng: random.Random, paths: list[str], most: int = 12) -> list[str]:
    """Some of many."""
    return rng.sample(paths, min(most, len(paths)))


# --- rights, sockets, the kernel's rules --------------------------------------------------------------------------


def powerful(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """Programs that give their rights to whoever runs them."""
    make = functools.partial(Drift, "setuid")
    folders = (
        "/usr/local/bin", "/usr/bin", "/usr/sbin", "/usr/libexec", "/usr/lib/systemd", "/opt/{name}/bin", "/opt/{name}",
        "/var/tmp", "/var/lib/{name}", "/home/ops", "/srv", "/var/backups", "/usr/share/{name}",
        "/usr/games", "/etc/{name}", "/usr/local/lib/{name}", "/mnt",
    )  # fmt: skip
    for folder in folders:
        path = f"{folder.replace('{name}', a_name(rng))}/{rng.choice(('', '.'))}{a_name(rng)}"
        mode, capability = rng.choice(((0o4755, b""), (0o2755, b""), (0o755, planting.SETUID)))
        data = b"#!/bin/sh\n"
        sort = "capable" if capability else f"{mode:o}"
        yield make(f"planted, {sort}", (path,), functools.partial(planting.planted, tree, path, data, mode, capability))
    meek = [path for path in tree.files("/usr/bin/[b-r]*", "/usr/sbin/[a-m]*") if not tree.is_powerful(path)]
    for path in sample(rng, meek):
        mode, capability = rng.choice(((0o4000, b""), (0o2000, b""), (0, planting.SETUID)))
        sort = "capable" if capability else f"{mode:o}"
        yield make(f"marked, {sort}", (path,), functools.partial(planting.marked, tree, path, mode, capability))


def masks(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """Links to nowhere, and empty files, by whose names systemd leaves out what a package brought."""
    brought = {
        "/usr/lib/systemd/system": ("apt-daily.timer", "logrotate.timer", "systemd-sysctl.service"),
        "/usr/lib/systemd/system-generators": ("systemd-fstab-generator", "systemd-getty-generator"),
        "/usr/lib/tmpfiles.d": ("tmp.conf", "sudo.conf"),
        "/usr/lib/sysusers.d": ("basic.conf",),
        "/usr/lib/udev/rules.d": ("50-udev-default.rules",),
        "/usr/lib/sysctl.d": ("50-default.conf", "50-pid-max.conf", "99-protect-links.conf"),
        "/usr/lib/modprobe.d": ("systemd.conf", "aliases.conf"),
    }
    for folder, names in brought.items():
        for name in names if tree.files(f"{folder}/*") else ():
            path = f"{folder.replace('/usr/lib', rng.choice(('/etc', '/run')))}/{name}"
            if tree.state(path) is None and tree.state(f"{folder}/{name}"):
                plant = functools.partial(planting.linked, tree, path, "/dev/null", None)
                yield Drift("masks", "link", (path, name), plant)
                yield Drift("masks", "empty", (path, name), functools.partial(planting.planted, tree, path, b"", 0o644))
    for path in sample(rng, tree.files("/etc/cron.*/*", "/etc/logrotate.d/[a-b]*", "/etc/init.d/*"), 4):
        yield Drift("masks", "in its place", (path,), functools.partial(planting.replaced, tree, path, "/dev/null"))


def cached(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """Libraries that the loader finds by its cache, in folders that no configuration of it names."""
    for library in sample(rng, tree.files("/usr/lib/*/libz.so*", "/usr/lib/*/libcap*.so*"), 2):
        for folder in ("/var/tmp/{name}", "/opt/{name}/lib") if tree.state(CACHE) else ():
            # The cache knows a library by the name that programs ask for, such as libz.so.1.
            path = f"{filled(folder, rng)}/{re.sub(r'(?<=[.]so[.][0-9]).*', '', os.path.basename(library))}"
            for gone in (False, True):
                plant = functools.partial(loading, tree, path, tree.read(library), gone)
                yield Drift("the loader's cache", "library gone" if gone else "cached", (path, CACHE), plant)


@contextlib.contextmanager
def loading(tree: Tree, path: str, data: bytes, gone: bool) -> Iterator[None]:
    with planting.kept(tree, CACHE):
        with planting.planted(tree, path, data):
            subprocess.run(["/usr/sbin/ldconfig", "-X", os.path.dirname(path)], check=True, capture_output=True)
            if not gone:
                yield
        if gone:
            yield


def frozen(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """Files of Casemate's own that nobody can write any more, not even Casemate.

    Not those that a daemon has to have read since they changed: what is done to them stays until it starts again.
    """
    folders = ("apt/apt.conf.d", "logrotate.d", "profile.d", "security/*.d", "sudoers.d", "sysctl.d", "modprobe.d")
    for path in tree.files(*(f"/etc/{folder}/*casemate*" for folder in folders)):
        yield Drift("immutable", "immutable", (path,), functools.partial(planting.frozen, tree, path))


@contextlib.contextmanager
def done(command: list[str], undo: list[str]) -> Iterator[None]:
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode:
        raise OSError(f"{command}: {made.stderr}")
    try:
        yield
    finally:
        subprocess.run(undo, check=True, capture_output=True)


def rules(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """Tables of the kernel's rules by which comes in what ours refuse.

    Not those that accept earlier, or leave connections untracked: ours judge after them, and nothing comes in.
    """
    ports = ("2379", "10250", "6443", "9100", "10257")
    nobody = "ip saddr 192.0.2.66"  # whom no packet comes from
    bodies = {
        "sent elsewhere": f"type nat hook prerouting priority -110; {nobody} tcp dport {{port}} dnat to 192.0.2.67",
        "redirected": f"type nat hook prerouting priority -90; {nobody} tcp dport {{port}} redirect to :22",
        "as if from here": f"type filter hook prerouting priority -400; {nobody} ip saddr set 127.0.0.1",
        "to another port": f"type filter hook input priority 20; {nobody} tcp dport 22 tcp dport set {{port}}",
        "marked": f"type filter hook forward priority -300; {nobody} tcp dport {{port}} meta mark set 0x10000",
    }
    for variant, body in bodies.items():
        family = rng.choice(("inet", "ip"))
        if "nat hook" in body:
            family = "ip"
        name = a_name(rng).replace("-", "_")
        text = f"table {family} {name} {{ chain pre {{ {body.format(port=rng.choice(ports))}; }}; }}"
        plant = functools.partial(done, ["nft", text], ["nft", "delete", "table", family, name])
        yield Drift("rules of the kernel", variant, (f"table {family} {name}",), plant)
    name = a_name(rng).replace("-", "_")
    text = f"type filter hook ingress device lo priority 0; {nobody} fwd to lo;"
    plant = functools.partial(done, ["nft", f"table netdev {name} {{ chain pre {{ {text} }}; }}"],
                              ["nft", "delete", "table", "netdev", name])  # fmt: skip
    yield Drift("rules of the kernel", "to another device", (f"table netdev {name}",), plant)
    rule = f"PREROUTING -s 192.0.2.66 -p tcp --dport {rng.choice(ports)} -j DNAT --to 192.0.2.67"
    if shutil.which("iptables"):
        plant = functools.partial(done, f"iptables -t nat -I {rule}".split(), f"iptables -t nat -D {rule}".split())
        yield Drift("rules of the kernel", "by iptables", ("table ip nat",), plant)


@contextlib.contextmanager
def listening(port: int, udp: bool) -> Iterator[None]:
    with socket.socket(type=socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as bound:
        bound.bind(("0.0.0.0", port))
        if not udp:
            bound.listen()
        yield


@contextlib.contextmanager
def run(path: str, port: int, gone: bool) -> Iterator[None]:
    """A copy of a program listens on the loopback, and its file may be gone by then."""
    shutil.copy(os.path.realpath(sys.executable), path)
    script = f"import socket; s = socket.create_server(('127.0.0.1', {port})); print(1, flush=True); s.accept()"
    try:
        with subprocess.Popen([path, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
            try:
                if not (running.stdout and running.stdout.readline()):
                    raise OSError(f"{path} does not listen")
                if gone:
                    os.remove(path)
                yield
            finally:
                running.kill()
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def sockets(rng: random.Random, tree: Tree) -> Iterator[Drift]:
    """Programs that listen and that nobody knows of."""

    def places(proto: str, port: int) -> tuple[str, ...]:
        return (f"{proto}/{port}", f"0.0.0.0:{port}", f":{port}", str(port))

    for udp in (False, True):
        port, proto = rng.randrange(20000, 30000), "udp" if udp else "tcp"
        yield Drift("sockets", proto, places(proto, port), functools.partial(listening, port, udp))
    for variant, gone in (("a copy", False), ("a removed file", True)):
        port, path = rng.randrange(20000, 30000), f"/var/tmp/{a_name(rng)}"
        yield Drift("sockets", variant, places("tcp", port), functools.partial(run, path, port, gone))


def other_families() -> list[Family]:
    """Those on hosts that are more than a text in a file."""
    return [
        Family("setuid", SYSTEM, powerful),
        Family("masks", SYSTEM | {"T1.1", "T4.1", "T5.1"}, masks),
        Family("the loader's cache", SYSTEM, cached),
        Family("immutable", SYSTEM | {"T1.1", "T1.3", "T4.1", "T5.1"}, frozen),
        Family("rules of the kernel", NETWORK, rules),
        Family("sockets", NETWORK, sockets),
    ]
