"""Attacks on the kernel by a local user: what leaks addresses, loads old code, or reads a neighbour's memory."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
from testinfra.host import Host

from .conftest import python_on
from .planted import folder

# Each attempt is made by a process of its own, as nobody where the kernel is to refuse users; it says how it ended: the
# name of an error, or what it got.
TRY = """
import ctypes, errno, json, os, signal, socket, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
NOBODY, SYSCALLS = 65534, {"bpf": 321, "perf": 298, "userfaultfd": 323}
if os.uname().machine == "aarch64":
    SYSCALLS = {"bpf": 280, "perf": 241, "userfaultfd": 282}

def made(returned):
    if returned == -1:
        raise OSError(ctypes.get_errno(), "")
    return returned

def syscall(name, *arguments):
    return made(libc.syscall(SYSCALLS[name], *arguments))

def kernel_log():
    made(libc.klogctl(3, ctypes.create_string_buffer(4096), 4096))
    return "read"

def addresses():
    with open("/proc/kallsyms") as symbols:
        return str(sum(int(line.split()[0], 16) != 0 for line in symbols)) + " addresses"

def memory_of_a_sibling():
    first = os.fork()
    if first == 0:
        signal.pause()
    second = os.fork()
    if second == 0:
        os._exit(ctypes.get_errno() if libc.ptrace(16, first, 0, 0) else 0)
    code = os.waitstatus_to_exitcode(os.waitpid(second, 0)[1])
    os.kill(first, signal.SIGKILL)
    return errno.errorcode[code] if code else "traced"

def bpf():
    syscall("bpf", 0, struct.pack("<5I", 2, 4, 4, 1, 0), 20)
    return "loaded"

def perf():
    syscall("perf", struct.pack("<2I5Q", 1, 64, 0, 0, 0, 0, 0).ljust(64, b"\\0"), 0, -1, -1, 0)
    return "measures"

def faults_of_the_kernel():
    syscall("userfaultfd", 0)
    return "handles them"

def lowest_page():
    libc.mmap.restype = ctypes.c_ssize_t
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    made(libc.mmap(0, 4096, 3, 0x32, -1, 0))
    return "mapped"

def hard_link():
    os.link("/etc/shadow", sticky + "/link")
    return "linked"

def as_root(path, how):
    os.seteuid(0)
    with open(os.open(path, how | os.O_CREAT), "rb"):
        return "opened"

def planted_link():
    os.symlink("/etc/hostname", sticky + "/symlink")
    return as_root(sticky + "/symlink", os.O_RDONLY)

def planted_pipe():
    os.mkfifo(sticky + "/pipe")
    return as_root(sticky + "/pipe", os.O_RDWR)

def planted_file():
    with open(sticky + "/file", "w"):
        return as_root(sticky + "/file", os.O_RDONLY)

def same_addresses():
    script = ["sed", "-n", "/stack/s/-.*//p", "/proc/self/maps"]
    return "random" if len({subprocess.check_output(script) for _ in range(4)}) > 1 else "the same each time"

def protocol(family, sort, number):
    socket.socket(family, sort, number)
    return "a socket"

sticky = sys.argv[1]
attempts = [kernel_log, addresses, memory_of_a_sibling, bpf, perf, faults_of_the_kernel, lowest_page, hard_link,
            planted_link, planted_pipe, planted_file, same_addresses]
named = {one.__name__: one for one in attempts}
named.update(dccp=lambda: protocol(socket.AF_INET, 6, 33), tipc=lambda: protocol(30, socket.SOCK_SEQPACKET, 0),
             rds=lambda: protocol(21, socket.SOCK_SEQPACKET, 0), atm=lambda: protocol(20, socket.SOCK_DGRAM, 0))
ended = {}
for name, attempt in named.items():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, 0 if name.startswith("planted") else NOBODY)
        libc.prctl(4, 1, 0, 0, 0)
        try:
            said = attempt()
        except OSError as refused:
            said = errno.errorcode[refused.errno]
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as heard:
        ended[name] = heard.read()
    os.waitpid(child, 0)
print(json.dumps(ended))
"""
REFUSED = ("EPERM", "EACCES")
NOT_THERE = ("EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT")


@functools.cache
def attempts(host: Host) -> dict[str, Any]:
    """How each attempt ended on a machine; all of them are made at once."""
    with folder(host, "1777", "/tmp") as sticky:
        tried: dict[str, Any] = json.loads(python_on(host, TRY, sticky))
    return tried


@pytest.fixture(scope="session")
def kernels(nodes: list[Host]) -> list[Host]:
    """The nodes with a kernel of their own: elsewhere its parameters are the host's."""
    own = [host for host in nodes if host.run("test -w /proc/sys/kernel/dmesg_restrict").rc == 0]
    if not own:
        pytest.skip("kernel: no node of this inventory has a kernel of its own")
    return own


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param("kernel_log", marks=pytest.mark.control("SYSCTL-DMESG-RESTRICTED")),
        pytest.param("memory_of_a_sibling", marks=pytest.mark.control("SYSCTL-PTRACE-RESTRICTED")),
        pytest.param("bpf", marks=pytest.mark.control("SYSCTL-BPF-PRIVILEGED")),
        pytest.param("perf", marks=pytest.mark.control("SYSCTL-PERF-RESTRICTED")),
        pytest.param("faults_of_the_kernel", marks=pytest.mark.control("SYSCTL-USERFAULTFD-PRIVILEGED")),
        pytest.param("lowest_page", marks=pytest.mark.control("SYSCTL-MMAPMIN-SET")),
        pytest.param("hard_link", marks=pytest.mark.control("SYSCTL-HARDLINKS-PROTECTED")),
        pytest.param("planted_link", marks=pytest.mark.control("SYSCTL-SYMLINKS-PROTECTED")),
        pytest.param("planted_pipe", marks=pytest.mark.control("SYSCTL-FIFOS-PROTECTED")),
        pytest.param("planted_file", marks=pytest.mark.control("SYSCTL-REGULAR-PROTECTED")),
    ],
)
def test_the_kernel_refuses_a_user(kernels: list[Host], attempt: str) -> None:
    for host in kernels:
        assert attempts(host)[attempt] in REFUSED


@pytest.mark.control("SYSCTL-KPTR-HIDDEN")
def test_a_user_sees_no_address_of_the_kernel(kernels: list[Host]) -> None:
    for host in kernels:
        assert attempts(host)["addresses"] in ("0 addresses", *REFUSED)


@pytest.mark.control("SYSCTL-ASLR-FULL")
def test_programs_lie_at_other_addresses_each_time(kernels: list[Host]) -> None:
    for host in kernels:
        assert attempts(host)["same_addresses"] == "random"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("dccp", marks=pytest.mark.control("MODULE-DCCP-BLOCKED")),
        pytest.param("tipc", marks=pytest.mark.control("MODULE-TIPC-BLOCKED")),
        pytest.param("rds", marks=pytest.mark.control("MODULE-RDS-BLOCKED")),
        pytest.param("atm", marks=pytest.mark.control("MODULE-ATM-BLOCKED")),
    ],
)
def test_a_user_brings_no_old_protocol_into_the_kernel(kernels: list[Host], name: str) -> None:
    """Opening a socket has the kernel ask for the module; then root asks for it by name."""
    for host in kernels:
        assert attempts(host)[name] in NOT_THERE
        assert host.run("modprobe %s", name).rc != 0
        assert host.run("grep -q '^%s ' /proc/modules", name).rc != 0
