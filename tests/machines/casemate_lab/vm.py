"""Machines of the lab with a kernel of their own: QEMU, which emulates a processor where the host lends none.

It starts as a server does: its firmware reads the first sector of a disk, GRUB reads what update-grub wrote,
and that names the kernel and its arguments. Its network is that of all machines of a lab.
"""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

from casemate_lab.image import LabError, run

MIB = 1024 * 1024
SECTOR = 512
FIRST = 2048
"""The sector at which the only partition begins; GRUB's image lies before it."""
DISK_MIB = 8192
MEMORY_MIB = 3072
LINUX, ACTIVE = 0x83, 0x80
"""Type and state of a partition in the table of a disk."""
MENU = """set root=(hd0,msdos1)
linux /boot/vmlinuz-{release} root=UUID={uuid} ro console=ttyS0
initrd /boot/initrd.img-{release}
boot
"""
"""What GRUB reads before update-grub has run inside for the first time."""


def disk(root: Path, repository: Path, path: Path) -> None:
    """Make the disk of a machine of its root folder, with the packages that it may install; needs root's rights."""
    name = str(uuid.uuid4())
    kernels = sorted(path.name.partition("-")[2] for path in (root / "boot").glob("vmlinuz-*"))
    if not kernels:
        raise LabError(f"{root}/boot has no kernel")
    (root / "boot/grub/grub.cfg").write_text(MENU.format(release=kernels[-1], uuid=name))
    (root / "etc/fstab").write_text(f"UUID={name} / ext4 errors=remount-ro 0 1\n")
    # Without one systemd takes this for the first boot ever, and asks at the console.
    (root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
    with path.open("wb") as made:
        made.truncate(DISK_MIB * MIB)
    offset = FIRST * SECTOR
    kibibytes = (DISK_MIB * MIB - offset) // 1024
    run("mount", "--bind", repository, root / "srv/apt")
    try:
        run("chroot", root, "apt-get", "--quiet=2", "update")
        run("mke2fs", "-q", "-F", "-t", "ext4", "-U", name, "-E", f"offset={offset}", "-d", root, path, f"{kibibytes}k")
    finally:
        run("umount", root / "srv/apt")
    with path.open("r+b") as made:
        made.write(first_sectors(root / "boot/grub/i386-pc"))


def first_sectors(grub: Path) -> bytes:
    """What stands before the partition: GRUB's first sector with the table in it, and its image.

    As grub-mkimage makes it, that image follows the first sector and knows its own length.
    """
    boot, core = (grub / "boot.img").read_bytes(), (grub / "core.img").read_bytes()
    if len(core) > (FIRST - 1) * SECTOR:
        raise LabError(f"GRUB's image has {len(core)} bytes, which do not fit before the partition")
    no_geometry = b"\xfe\xff\xff"
    sectors = DISK_MIB * MIB // SECTOR - FIRST
    partition = struct.pack("<B3sB3sII", ACTIVE, no_geometry, LINUX, no_geometry, FIRST, sectors)
    return boot[:440] + bytes(6) + partition.ljust(64, b"\0") + b"\x55\xaa" + core


def command(disk_path: Path, link: str, mac: str) -> list[str]:
    """The words that start a machine, whose network is the tap device `link`; its console is their output."""
    return [
        "nice", "-n", "5", "qemu-system-x86_64", "-no-user-config", "-nodefaults", "-display", "none",
        "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off", "-smp", "2", "-m", str(MEMORY_MIB),
        "-drive", f"file={disk_path},format=raw,if=virtio,cache=unsafe",
        "-netdev", f"tap,id=lab,ifname={link},script=no,downscript=no",
        "-device", f"virtio-net-pci,netdev=lab,mac={mac},romfile=", "-device", "virtio-rng-pci",
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
    ]  # fmt: skip
