"""What runs first when the double's `k3s` is started: it unpacks itself as K3s does, and starts what it unpacked."""

from __future__ import annotations

import fcntl
import io
import os
import re
import shutil
import sys
import tarfile
import time
import zipfile

DEFAULT = "/var/lib/rancher/k3s"
HELP = """NAME:
   k3s - a double of K3s for tests, not a Kubernetes

USAGE:
   k3s [global options] command [command options]

COMMANDS:
   server, agent, kubectl get --raw, etcd-snapshot save|ls, secrets-encrypt status, certificate check
"""


def say(text: str) -> None:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(f'time="{when}" level=info msg="{text}"', file=sys.stderr)


def data_dir(args: list[str]) -> str:
    """Where --data-dir says; Casemate refuses that key in a configuration."""
    match = re.search(r" --data-dir[= ](\S+)", " ".join(["", *args]))
    return match[1] if match else DEFAULT


def relink(target: str, link: str) -> None:
    if os.path.islink(link):
        os.unlink(link)
    os.symlink(target, link)


def extract(base: str, archive: zipfile.ZipFile) -> str:
    """Unpack DATA/<sha256 of the archive> once, in place only when complete; return that folder."""
    name = next(n for n in archive.namelist() if n.endswith(".tar"))
    data = os.path.join(base, "data")
    folder = os.path.join(data, name[: -len(".tar")])
    if os.path.exists(folder + "/bin/k3s"):
        return folder
    os.makedirs(data, mode=0o755, exist_ok=True)
    say(f"Acquiring lock file {data}/.lock")
    with os.fdopen(os.open(data + "/.lock", os.O_RDWR | os.O_CREAT, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(folder):
            return folder
        say(f"Preparing data dir {folder}")
        shutil.rmtree(folder + "-tmp", ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(archive.read(name))) as tar:
            tar.extractall(folder + "-tmp")
        if os.path.islink(data + "/current"):
            os.rename(data + "/current", data + "/previous")
        os.symlink(folder, data + "/current")
        os.rename(folder + "-tmp", folder)
        os.makedirs(data + "/cni", mode=0o755, exist_ok=True)
        relink(folder + "/bin/cni", data + "/cni/cni")
        for link in os.listdir(folder + "/bin"):
            path = os.path.join(folder, "bin", link)
            if os.path.islink(path) and os.readlink(path) == "cni":
                relink(folder + "/bin/cni", data + "/cni/" + link)
    return folder


def main() -> None:
    args = sys.argv[1:]
    with zipfile.ZipFile(sys.argv[0]) as archive:
        version = archive.read("version").decode()
        if args[:1] in (["--version"], ["-v"]):
            print(f"k3s version {version} (double)\ngo version none, Python {sys.version.split()[0]}")
            return
        if not args or args[0] in ("help", "--help", "-h"):
            print(HELP, end="")
            return
        folder = extract(data_dir(args), archive)
    os.environ["DOUBLE_TITLE"] = " ".join(sys.argv[:1] + args[:1])
    os.execv(folder + "/bin/k3s", [folder + "/bin/k3s", *args])


os.umask(0o022)
main()
