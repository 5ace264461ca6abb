"""What the lab's machines are made of: a cached Debian folder, and the packages that they install.

Both are built into a temporary folder and renamed, so that an interrupted build leaves nothing behind, and
both are named by a hash of what they are made from, so that a changed list makes a new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

CACHE = Path.home() / ".cache" / "casemate" / "lab"
TOOLS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "apt-get": "apt",
}
"""The programs that the lab needs, and the Debian package of each."""

VM_TOOLS = {**TOOLS, "qemu-system-x86_64": "qemu-system-x86", "mke2fs": "e2fsprogs"}
"""The same where machines have a kernel of their own."""

RELEASES = {"12": "bookworm", "13": "trixie"}
"""The Debian releases that machines can be made of."""

# What a plain server has before anyone hardens it, and what K3s takes from its host. A language and time zones come
# along, because nothing may depend on them.
BASE_PACKAGES = (
    "acl,busybox-static,ca-certificates,conntrack,dbus,ethtool,iproute2,ipset,iptables,kmod,less,libpam-systemd,locales,"
    "logrotate,mount,openssh-server,procps,python3,python3-apt,socat,sudo,systemd,systemd-sysv,tzdata,util-linux"
)
# What a machine with a kernel of its own starts with: Debian's kernel for clouds, and GRUB.
KERNEL_PACKAGES = "grub-pc,initramfs-tools,linux-image-cloud-amd64"
# What the roles install. It is deliberately absent from the base, so that its installation is tested too. aide, debsums
# and lynis are what `make peers` looks with.
PACKAGES = [
    "acct", "aide", "aide-common", "apparmor", "apparmor-utils", "auditd", "cracklib-runtime", "debsums", "jq",
    "libpam-google-authenticator", "libpam-pwquality", "lynis", "needrestart", "nftables", "rsyslog",
    "systemd-timesyncd", "unattended-upgrades",
]  # fmt: skip
INSTEAD = [["chrony"], ["ufw"], ["iptables-persistent"]]
"""What excludes one of PACKAGES or one of the others, for machines on which it stands in its place."""

BOOT_UNIT = """[Unit]
Description=Prepare a lab machine: cgroups that K3s may write, and the index of the local packages
Before=ssh.service k3s.service k3s-agent.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for m in $$(findmnt --raw --noheadings --output TARGET | grep "^/sys/fs/cgroup"); \
do mount -o remount,bind,rw $$m || :; done'
ExecStart=-/usr/bin/apt-get --quiet=2 update

[Install]
WantedBy=multi-user.target
"""
# A user manager that is told to stop while it starts would hold up a reboot for its two minutes.
STOPS_SOON = "[Service]\nTimeoutStopSec=2s\n"
# Its console is a serial line, and nobody waits at its menu.
GRUB_SETTINGS = """GRUB_CMDLINE_LINUX=console=ttyS0
GRUB_TERMINAL=console
GRUB_TIMEOUT=0
"""
BOOT_PACKAGE = """Package: casemate-lab
Version: 1
Architecture: all
Maintainer: Casemate maintainers <casemate@example.org>
Description: what a machine of Casemate's lab does at boot
"""
SETUP = f"""
for user in ops alice; do useradd --create-home --shell /bin/bash $user; done
echo 'ops ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops
chmod 0440 /etc/sudoers.d/ops
rm -f /etc/ssh/ssh_host_*
# As a package, and without what made the image: whatever runs here has somebody who vouches for it.
mkdir -p /tmp/boot/DEBIAN /tmp/boot/usr/lib/systemd/system/user@.service.d
printf %s {shlex.quote(BOOT_UNIT)} > /tmp/boot/usr/lib/systemd/system/casemate-lab.service
printf %s {shlex.quote(STOPS_SOON)} > /tmp/boot/usr/lib/systemd/system/user@.service.d/lab.conf
printf %s {shlex.quote(BOOT_PACKAGE)} > /tmp/boot/DEBIAN/control
(cd /tmp/boot && find usr -type f -exec md5sum {{}} + > DEBIAN/md5sums)
dpkg-deb --root-owner-group --build /tmp/boot /tmp/boot.deb
dpkg --install /tmp/boot.deb
rm -rf /tmp/boot /tmp/boot.deb /etc/dpkg/dpkg.cfg.d/99mmdebstrap
systemctl enable systemd-networkd.service casemate-lab.service
mkdir -p /srv/apt /var/lib/rancher /var/lib/kubelet
localedef --inputfile=de_DE --charmap=UTF-8 de_DE.UTF-8
"""
# The packages are on the disk, with their index, and cgroups are its own.
KERNEL_SETUP = f"""
mkdir -p /etc/default/grub.d /boot/grub
printf %s {shlex.quote(GRUB_SETTINGS)} > /etc/default/grub.d/lab.cfg
# As grub-install does, but for what needs the disk: vm.py writes the two images to it.
cp -r /usr/lib/grub/i386-pc /boot/grub
grub-mkimage --format=i386-pc --prefix='(hd0,msdos1)/boot/grub' --output=/boot/grub/i386-pc/core.img \
  biosdisk part_msdos ext2
systemctl disable casemate-lab.service
"""


class LabError(Exception):
    """The lab cannot do what is asked; the message says what to do about it."""


def missing_tools(which: Callable[[str], str | None] = shutil.which, uid: int | None = None, vm: bool = False) -> str:
    """What keeps the lab from running here, with the line that helps; empty when nothing does."""
    tools = VM_TOOLS if vm else TOOLS
    absent = [tool for tool in tools if not which(tool)]
    faults = [f"missing: {', '.join(absent)}"] if absent else []
    if (os.geteuid() if uid is None else uid) != 0:
        faults.append("it must run as root")
    if not faults:
        return ""
    helps = f"\n  apt-get install {' '.join(sorted({tools[tool] for tool in absent}))}" if absent else ""
    return f"the lab cannot run here: {'; '.join(faults)}{helps}"


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the cache's lock: several labs may start at once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Show that something goes on, and then how long it took."""
    console, began = Console(stderr=True, highlight=False), time.monotonic()
    with console.status(f"{title} …"):
        yield
    console.print(f"[green]✓[/] {title} ({time.monotonic() - began:.1f} s)")


def run(*argv: str | Path, cwd: Path | None = None) -> str:
    """Run a program to its end and return its output; raises LabError with the end of what it said."""
    with subprocess.Popen(
        [str(a) for a in argv], cwd=cwd, text=True, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1
    ) as child:
        try:
            out, err = child.communicate()
        except BaseException:
            child.terminate()
            child.wait()  # nothing may still write when its folder is removed
            raise
    if child.returncode:
        raise LabError(f"{argv[0]} failed ({child.returncode}): {(err or out).strip()[-1500:]}")
    return out


def _cached(kind: str, recipe: str, title: str, build: Callable[[Path], None]) -> Path:
    """The folder of that kind made from that recipe, built when it is not there yet."""
    target = CACHE / f"{kind}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with locked():
        if not target.exists():
            made = target.with_suffix(".tmp")
            for left in CACHE.glob(f"{kind}-*.tmp"):  # of a build that was killed: the lock is ours
                shutil.rmtree(left)
            try:
                with step(title):
                    build(made)
                made.rename(target)
            except BaseException:
                shutil.rmtree(made, ignore_errors=True)
                raise
    return target


def base(debian: str = "12", vm: bool = False) -> Path:
    """The root folder that all machines of a Debian release share; 220 MB, half a minute the first time.

    With `vm` it has a kernel, too.
    """
    included = f"{BASE_PACKAGES},{KERNEL_PACKAGES}" if vm else BASE_PACKAGES
    setup = SETUP + KERNEL_SETUP if vm else SETUP
    argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={included}"]
    argv += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
    argv += [f'--customize-hook=chroot "$1" sh -euc {shlex.quote(setup)}', RELEASES[debian]]

    def build(made: Path) -> None:
        run("unshare", "--mount", *argv, made)  # its mounts must not outlive it, least of all when it is killed

    return _cached("base", "\0".join(argv), f"Debian {debian} base image{' with a kernel' * vm}", build)


def packages(root: Path) -> Path:
    """A flat apt repository of PACKAGES and all they need beyond `root`: real installations, no network."""

    def build(made: Path) -> None:
        (made / "lists" / "partial").mkdir(parents=True)
        (made / "partial").mkdir()
        apt = [
            "apt-get", "--quiet=2", "--yes", "--no-install-recommends",
            "-o", f"Dir::Etc::sourcelist={root}/etc/apt/sources.list", "-o", "Dir::Etc::sourceparts=-",
            "-o", f"Dir::State::status={root}/var/lib/dpkg/status", "-o", f"Dir::State::lists={made}/lists",
            "-o", "Dir::Etc::preferences=-", "-o", "Dir::Etc::preferencesparts=-", "-o", "Dir::Cache::pkgcache=",
            "-o", "Dir::Cache::srcpkgcache=", "-o", f"Dir::Cache::archives={made}",
            "-o", "APT::Sandbox::User=root",
        ]  # fmt: skip
        run(*apt, "update")
        for chosen in (PACKAGES, *INSTEAD):
            run(*apt, "--download-only", "install", *chosen)
        index = []
        for deb in sorted(made.glob("*.deb")):
            digest = hashlib.sha256(deb.read_bytes()).hexdigest()
            facts = f"Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n"
            index.append(run("dpkg-deb", "--field", deb).strip() + "\n" + facts)
        (made / "Packages").write_text("\n".join(index), encoding="utf-8")
        shutil.rmtree(made / "lists")

    return _cached("repo", f"{root.name} {' '.join(sum(INSTEAD, PACKAGES))} 1", "package folder", build)
