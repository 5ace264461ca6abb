"""Pull images past, and by, the signed list on a node: a registry on loopback, and what containerd says to each pull.

Runs as root on a node of the lab: test_images_lab.py sends it, and reads the one JSON object that it prints: case ->
[whether it was pulled, what was said]. Standard library only, Python 3.9. Given `serve`, it is the registry alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any

HOME, PORT = "/root/images", 5555
LISTS, VERIFIERS = "/etc/casemate/images", "/usr/local/lib/casemate/image-verifiers"
HOSTS = "/var/lib/rancher/k3s/agent/etc/containerd/certs.d"
OCI = "application/vnd.oci.image"
REGISTRY = f"127.0.0.1:{PORT}"
Blobs = dict[str, bytes]


def layer() -> bytes:
    """The first layer of the image that tests have on every node, as `ctr images export` packed it."""
    with tarfile.open(f"{HOME}/base.tar") as archive:

        def blob(digest: str) -> bytes:
            return archive.extractfile(f"blobs/sha256/{digest[7:]}").read()  # type: ignore[union-attr]

        made = json.loads(archive.extractfile("index.json").read())  # type: ignore[union-attr]
        while "manifests" in made:
            made = json.loads(blob(made["manifests"][0]["digest"]))
        return blob(made["layers"][0]["digest"])


def images() -> tuple[Blobs, dict[str, str]]:
    """Blobs by digest, and the digests of images by name: alike but for a label, and one with an index."""
    blobs: Blobs = {}

    def put(data: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return digest

    def described(kind: str, digest: str) -> dict[str, Any]:
        return {"mediaType": f"{OCI}.{kind}", "digest": digest, "size": len(blobs[digest])}

    held = put(layer())

    def image(name: str) -> str:
        config: dict[str, Any] = {"architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z"}
        config |= {"config": {"Labels": {"name": name}}, "rootfs": {"type": "layers", "diff_ids": [held]}}
        manifest = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json"}
        manifest["config"] = described("config.v1+json", put(json.dumps(config).encode()))
        manifest["layers"] = [described("layer.v1.tar", held)]
        return put(json.dumps(manifest).encode())

    made = {name: image(name) for name in ("good", "moved", "bad", "imported", "platform")}
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json"}
    of = {**described("manifest.v1+json", made["platform"]), "platform": {"architecture": "amd64", "os": "linux"}}
    made["index"] = put(json.dumps({**index, "manifests": [of]}).encode())
    return blobs, made


def serve() -> None:
    """A read-only registry; repository:tag -> image stands in tags.json, which is read at each request."""
    blobs, made = images()
    with open(f"{HOME}/digests.json", "w") as file:
        json.dump(made, file)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].strip("/").split("/")
            wanted = path[-1]
            if not wanted.startswith("sha256:"):
                with open(f"{HOME}/tags.json") as tags:
                    wanted = made.get(json.load(tags).get(f"{'/'.join(path[1:-2])}:{wanted}", ""), "")
            data = blobs.get(wanted)
            self.send_response(200 if data is not None else 404)
            if data is not None and "manifests" in path:
                self.send_header("Content-Type", json.loads(data)["mediaType"])
                self.send_header("Docker-Content-Digest", wanted)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data or b"")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()


def pull(reference: str) -> tuple[bool, str]:
    """Whether containerd pulls it, as the kubelet asks it to, and what it says."""
    done = subprocess.run(["k3s", "crictl", "pull", reference], capture_output=True, text=True, check=False)
    return done.returncode == 0, "" if done.returncode == 0 else done.stderr.strip()[-700:]


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """What the verifier is and reads, as it was."""
    for name, path in (("lists", LISTS), ("verifiers", VERIFIERS)):
        shutil.rmtree(f"{HOME}/{name}", ignore_errors=True)
        shutil.copytree(path, f"{HOME}/{name}")
    try:
        yield
    finally:
        for name, path in (("lists", LISTS), ("verifiers", VERIFIERS)):
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(f"{HOME}/{name}", path)


def sign(key: str = "key", namespace: str = "casemate-images") -> None:
    """Sign the list of this node."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{LISTS}/list.json.sig")
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", f"{HOME}/{key}", "-n", namespace, f"{LISTS}/list.json"]
    subprocess.run(command, check=True, capture_output=True)


def write(name: str, text: str, folder: str = LISTS, mode: int = 0o644) -> None:
    """Write a file of the verifier's."""
    with open(f"{folder}/{name}", "w") as file:
        file.write(text)
    os.chmod(f"{folder}/{name}", mode)


def changed(signs: bool, **fields: Any) -> None:
    """The list with other fields, signed anew or not."""
    with open(f"{LISTS}/list.json") as file:
        listed = json.load(file)
    write("list.json", json.dumps({**listed, **fields}))
    if signs:
        sign()


def ended() -> None:
    """The list with entries that are over."""
    with open(f"{LISTS}/list.json") as file:
        entries = json.load(file)["images"]
    changed(True, images=[{**entry, "until": "2026-01-01"} for entry in entries])


def broken() -> None:
    """No list at all, but signed."""
    write("list.json", "{")
    sign()


def linked() -> None:
    """The list behind a link."""
    os.rename(f"{LISTS}/list.json", f"{LISTS}/list")
    os.symlink("list", f"{LISTS}/list.json")


def program(text: str, name: str = "casemate", mode: int = 0o755) -> None:
    """Another program among the verifiers."""
    write(name, text, VERIFIERS, mode)


DAMAGES: dict[str, Callable[[], object]] = {
    "unsigned": lambda: os.unlink(f"{LISTS}/list.json.sig"),
    "signed by a stranger": lambda: sign("stranger"),
    "signed for something else": lambda: sign(namespace="casemate-lock"),
    "changed after signing": lambda: changed(False, images=[]),
    "empty and signed": lambda: changed(True, images=[]),
    "over and signed": lambda: changed(True, expires="2026-01-01"),
    "entry over and signed": ended,
    "broken and signed": broken,
    "no list": lambda: os.unlink(f"{LISTS}/list.json"),
    "list behind a link": linked,
    "no signers": lambda: write("allowed_signers", ""),
    "broken further verifiers": lambda: write("verifiers.json", "["),
    "verifier hangs": lambda: program("#!/bin/sh\nexec sleep 60\n"),
    "verifier emptied": lambda: program(""),
    "verifier without interpreter": lambda: program("#!/nowhere\n"),
    "verifier not executable": lambda: os.chmod(f"{VERIFIERS}/casemate", 0o644),
}
"""What is done to verifier and list -> an image of the list is refused."""


def main() -> None:
    """Try all, and print what came of it."""
    with open(f"{HOME}/digests.json") as file:
        made = json.load(file)
    good, bad = f"{REGISTRY}/app@{made['good']}", f"{REGISTRY}/app@{made['bad']}"
    with open(f"{HOME}/tags.json", "w") as file:
        json.dump({"app:1": "good", "app:2": "moved", "index:1": "index"}, file)
    references = {
        "digest": good,
        "tag": f"{REGISTRY}/app:1",
        "index": f"{REGISTRY}/index@{made['index']}",
        "index by tag": f"{REGISTRY}/index:1",
        "tag moved": f"{REGISTRY}/app:2",
        "platform of an index": f"{REGISTRY}/index@{made['platform']}",
        "digest not listed": bad,
        "digest of another repository": f"{REGISTRY}/other@{made['good']}",
        "digest of a deeper repository": f"{REGISTRY}/x/app@{made['good']}",
        "look-alike host": f"localhost:{PORT}/app@{made['good']}",
    }
    said = {case: pull(reference) for case, reference in references.items()}
    for case, damage in DAMAGES.items():
        with kept():
            damage()
            said[case] = pull(good)
    with kept():
        program("#!/bin/sh\nexit 0\n", "00")
        said["lax verifier before ours"] = pull(bad)
    said["all as it was"] = pull(good)
    print(json.dumps(said))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    for registry in (REGISTRY, f"localhost:{PORT}"):
        os.makedirs(f"{HOSTS}/{registry}", exist_ok=True)
        with open(f"{HOSTS}/{registry}/hosts.toml", "w") as hosts:
            hosts.write(
                f'server = "http://{registry}"\n[host."http://{registry}"]\ncapabilities = ["pull", "resolve"]\n'
            )
    time.sleep(0.1)
    main()
