"""Attacks by images: from where nobody allows them, by a tag that moves, or with bytes that nobody signed for."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from testinfra.host import Host

from .conftest import Kubectl, is_double, python_on
from .planted import planted
from .test_access import variables
from .test_cluster import IMAGE, pod

DIGEST = "@sha256:" + "0" * 64
ELSEWHERE = {
    "another registry": f"registry.invalid/app{DIGEST}",
    "a name that begins like Docker Hub": f"docker.io.registry.invalid/library/busybox{DIGEST}",
    "capitals": f"REGISTRY.invalid/app{DIGEST}",
    "an address": f"[2001:db8::1]:5000/app{DIGEST}",
    "another host behind a digest": f"registry.invalid/app{DIGEST}@docker.io/library/busybox",
}
BY_DIGEST = f"docker.io/library/busybox{DIGEST}"
"""For what is beside an attack: nobody refuses it for its tag, so that who speaks, if several refuse, is no chance."""


def need(host: Host, name: str) -> None:
    """Leave out what nobody asks for."""
    if not variables(host).get(name):
        pytest.skip(f"unasked: {name} is not set")


def with_image(place: str, image: str) -> dict[str, Any]:
    """A pod with an image in one of its kinds of containers."""
    made = pod("casemate-attack")
    (main,) = made["spec"]["containers"]
    main["image"] = image if place == "containers" else BY_DIGEST
    if place != "containers":
        made["spec"][place] = [{**main, "name": "first", "image": image}]
    return made


@pytest.mark.control("REGISTRIES-PODS-LIMITED", "REGISTRIES-PODS-BOUND")
@pytest.mark.parametrize("place", ["containers", "initContainers"])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_pod_from_another_registry_is_refused(api: Host, kubectl: Kubectl, name: str, place: str) -> None:
    need(api, "casemate_registries")
    answer = kubectl("create", "--dry-run=server", "-f", "-", stdin=with_image(place, ELSEWHERE[name]), expect=False)
    assert answer.rc != 0
    assert ELSEWHERE[name] in answer.stderr
    policies = ["registries"] if ELSEWHERE[name].endswith(DIGEST) else ["registries", "images-by-digest"]
    assert any(f"ValidatingAdmissionPolicy 'casemate-{one}'" in answer.stderr for one in policies)


@pytest.mark.control("IMAGES-TAGS-REFUSED", "IMAGES-TAGS-BOUND")
@pytest.mark.parametrize("place", ["containers", "initContainers"])
def test_a_pod_by_a_tag_is_refused(api: Host, kubectl: Kubectl, place: str) -> None:
    """Where its registry is not listed either, that may be said instead."""
    need(api, "casemate_image_digests_only")
    answer = kubectl("create", "--dry-run=server", "-f", "-", stdin=with_image(place, IMAGE), expect=False)
    assert answer.rc != 0
    assert "ValidatingAdmissionPolicy 'casemate-" in answer.stderr


@pytest.mark.control("REGISTRIES-RUNTIME-LIMITED", "REGISTRIES-FILE-OWNED")
def test_the_runtime_asks_no_other_registry(nodes: list[Host]) -> None:
    """As static pods and crictl pull, of which admission knows nothing."""
    for host in nodes:
        need(host, "casemate_registries")
        if is_double(host):
            pytest.skip("api_semantics: a double has no containerd")
        answer = host.run("k3s crictl pull %s", ELSEWHERE["another registry"])
        assert answer.rc != 0
        assert "casemate_registries" in answer.stderr


UNSIGNED = """
import hashlib, http.server, json, subprocess, sys, threading
KIND = "application/vnd.oci.image."
blobs = {}
def put(data):
    blobs["sha256:" + hashlib.sha256(data).hexdigest()] = data
    return "sha256:" + hashlib.sha256(data).hexdigest(), len(data)
def described(kind, data):
    digest, size = put(data)
    return {"mediaType": KIND + kind, "digest": digest, "size": size}
layer = bytes(1024)
rootfs = {"type": "layers", "diff_ids": [put(layer)[0]]}
config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
manifest = json.dumps({"schemaVersion": 2, "mediaType": KIND + "manifest.v1+json",
    "config": described("config.v1+json", config), "layers": [described("layer.v1.tar", layer)]}).encode()
digest, _ = put(manifest)
class Registry(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        data = blobs.get(self.path.rpartition("/")[2], b"")
        self.send_response(200 if data else 404)
        if "/manifests/" in self.path:
            self.send_header("Content-Type", KIND + "manifest.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
    do_HEAD = do_GET
    def log_message(self, *_):
        pass
serving = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Registry)
threading.Thread(target=serving.serve_forever, daemon=True).start()
image = "127.0.0.1:%s/attack@%s" % (sys.argv[1], digest)
done = subprocess.run(["k3s", "crictl", "pull", image], capture_output=True, text=True)
subprocess.run(["k3s", "crictl", "rmi", image], capture_output=True)
print(done.returncode, done.stdout, done.stderr)
"""
"""An image of nobody, pulled from a registry on the node itself."""


@pytest.mark.control("IMAGES-VERIFIER-ASKED", "IMAGES-VERIFIER-INSTALLED", "IMAGES-VERIFIER-ANSWERS")
def test_an_image_that_nobody_signed_for_is_not_pulled(nodes: list[Host]) -> None:
    for host in nodes:
        need(host, "casemate_image_list")
        if is_double(host):
            pytest.skip("api_semantics: a double has no containerd")
        port = str(20000 + secrets.randbelow(10000))
        folder = f"/var/lib/rancher/k3s/agent/etc/containerd/certs.d/127.0.0.1:{port}"
        told = f"mkdir -p {folder} && echo 'server = \"http://127.0.0.1:{port}\"' >{folder}/hosts.toml"
        with planted(host, told, f"rm -rf {folder}"):
            said = python_on(host, UNSIGNED, port)
        assert not said.startswith("0 ")
        assert "not on the list of images" in said
