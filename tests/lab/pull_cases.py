"""What is tried in the story of images: what runs, what is refused and by whom, and what a check names.

`{reg}` is the registry that is listed (its path `org` alone), `{at}` its address and port; `{stranger}` and `{below}`
are other names that lead to it. `{good}`, `{index}` and so on are digests of its images; these two are listed.
"""

from __future__ import annotations

from typing import NamedTuple

HOME, PORT = "/root/images", 5000
REGISTRY, STRANGER = f"registry.example.org:{PORT}", f"docker.io.example.org:{PORT}"
BELOW = f"registry.example.org.example.net:{PORT}"
SHOWN = ("reg", "stranger", "below")
"""What stands in the table as it is."""
REPOSITORIES = ("org/other", "org/x/app", "organisation/app", "library/nginx")
"""What the registry has beside org/app and org/index, by digests alone."""
LISTS, VERIFIERS = "/etc/casemate/images", "/usr/local/lib/casemate/image-verifiers"
WATCH = "/etc/systemd/system/casemate-image-verifiers"
CONTAINERD = "/var/lib/rancher/k3s/agent/etc/containerd"
DROPIN, HOSTS = f"{CONTAINERD}/config-v3.toml.d/zz.toml", f"{CONTAINERD}/certs.d"
STATIC = "/var/lib/rancher/k3s/agent/pod-manifests"
LIST_POLICY = "ValidatingAdmissionPolicy 'casemate-registries'"
TAG_POLICY = "ValidatingAdmissionPolicy 'casemate-images-by-digest'"


class Pod(NamedTuple):
    """The images of a pod: of its container, one that comes first, a volume; or of what is changed in one that runs."""

    image: str = "{reg}/org/app@{good}"
    first: str = ""
    volume: str = ""
    added: str = ""
    changed: str = ""
    namespace: str = "default"


ELSEWHERE = {
    "another registry": Pod("ghcr.io/org/app@{good}"),
    "Docker Hub by its name": Pod("docker.io/library/busybox@{good}"),
    "Docker Hub by no name": Pod("busybox@{good}"),
    "a host that begins like Docker Hub": Pod("{stranger}/library/nginx@{good}"),
    "a host that begins like the listed one": Pod("{below}/org/app@{good}"),
    "the listed host in capitals": Pod("REGISTRY.example.org:5000/org/app@{good}"),
    "the listed host with another port": Pod("registry.example.org:5001/org/app@{good}"),
    "the listed host without its port": Pod("registry.example.org/org/app@{good}"),
    "the listed host by its address": Pod("{at}/org/app@{good}"),
    "an address of IPv6": Pod("[2001:db8::1]:5000/org/app@{good}"),
    "the listed host as a user of another": Pod("registry.example.org@evil.example.net/org/app@{good}"),
    "a path that begins like the listed one": Pod("{reg}/organisation/app@{good}"),
    "a path that climbs out": Pod("{reg}/org/../other/app@{good}"),
    "another path": Pod("{reg}/other/app@{good}"),
    "a container that comes first": Pod(first="{stranger}/org/app@{good}"),
    "a container added while it runs": Pod(added="{stranger}/org/app@{good}"),
    "a volume that is an image": Pod(volume="{stranger}/org/app@{good}"),
    "the image of a running pod changed": Pod(changed="{stranger}/org/app@{good}"),
    "in a namespace made later": Pod("{stranger}/org/app@{good}", namespace="later"),
    "in kube-system": Pod("{stranger}/rancher/mirrored-pause@{good}", namespace="kube-system"),
}
"""Refused by the policy of registries."""
TAGGED = {
    "a tag": Pod("{reg}/org/app:1"),
    "no tag, so latest": Pod("{reg}/org/app"),
    "a tag that looks like a digest": Pod("{reg}/org/app:sha256-1"),
    "a container that comes first, by a tag": Pod(first="{reg}/org/app:1"),
    "a container added while it runs, by a tag": Pod(added="{reg}/org/app:1"),
    "the image of a running pod changed to a tag": Pod(changed="{reg}/org/app:1"),
    "a volume that is an image, by a tag": Pod(volume="{reg}/org/app:1"),
    "by a tag in kube-system": Pod("{reg}/org/app:1", namespace="kube-system"),
}
"""Refused by the policy of tags."""
NOBODY_ASKED = {
    "crictl: a host that begins like Docker Hub": "{stranger}/library/nginx@{good}",
    "crictl: a host that begins like the listed one": "{below}/org/app@{good}",
    "crictl: the listed host by its address": "{at}/org/app@{good}",
    "crictl: Docker Hub": "docker.io/library/nginx@{good}",
}
"""Refused by containerd, which asks no such registry; all but the last lead to the registry of the test."""
UNLISTED = {
    "crictl: a digest that is not listed": "{reg}/org/app@{bad}",
    "crictl: a listed digest under another name": "{reg}/org/other@{good}",
    "crictl: a listed digest one folder deeper": "{reg}/org/x/app@{good}",
    "crictl: a tag that was moved": "{reg}/org/app:2",
    "crictl: one platform of a listed index": "{reg}/org/index@{platform}",
}
"""Refused by the verifier."""
PULLED = {
    "crictl: a listed digest": "{reg}/org/app@{good}",
    "crictl: a tag of a listed digest": "{reg}/org/app:1",
    "crictl: a listed index": "{reg}/org/index@{index}",
    "crictl: a tag of a listed index": "{reg}/org/index:1",
}

CHANGE = """{{"metadata": {{"finalizers": {}}}}}"""
UNTOUCHED = {
    "a pod that ran by a tag before gets a label": "k3s kubectl label pod by-tag a=b",
    "a pod that ran by a tag before gets a finalizer, and loses it": " && ".join(
        f"k3s kubectl patch pod by-tag -p '{CHANGE.format(value)}'" for value in ('["example.org/a"]', "null")
    ),
    "a deployment that names a tag is made and gets a label": (
        "k3s kubectl create deployment by-tag --image example.org/app:1 --replicas 0"
        " && k3s kubectl label deployment by-tag a=b"
    ),
    "K3s' own image by its tag in kube-system": (
        "k3s kubectl run -n kube-system --dry-run=server own --image rancher/mirrored-pause:3.6"
    ),
}
"""What neither policy refuses, since it brings no image, or one of K3s' own."""


def _signed(document: str = "", key: str = "key", namespace: str = "casemate-images") -> str:
    """Change the list, and sign it anew."""
    sign = f"ssh-keygen -q -Y sign -f {HOME}/{key} -n {namespace} {LISTS}/list.json 2>/dev/null"
    return f"{document or 'true'}; rm -f {LISTS}/list.json.sig; {sign}"


EMPTY = f"""printf '{{"schema": 1, "expires": "2098-12-31", "images": []}}' >{LISTS}/list.json"""
LIST_DAMAGED = {
    "the list is unsigned": f"rm {LISTS}/list.json.sig",
    "the list is signed by a stranger": _signed(key="stranger"),
    "the list is signed for something else": _signed(namespace="casemate-lock"),
    "the list is changed after it was signed": f"sed -i s/ops/eve/ {LISTS}/list.json",
    "the list is over": _signed(f"""sed -i 's/"expires": .*/"expires": "2026-01-01",/' {LISTS}/list.json"""),
    "the list is of a later day": _signed(f"""sed -i 's/"issued": .*/"issued": "2098-01-01",/' {LISTS}/list.json"""),
    "the entry is over": _signed(f"""sed -i 's/"until": .*/"until": "2026-01-01"/' {LISTS}/list.json"""),
    "the list allows nothing": _signed(EMPTY),
    "the list is broken": _signed(f"echo '{{' >{LISTS}/list.json"),
    "the list is gone": f"rm {LISTS}/list.json",
    "the list is a link": f"mv {LISTS}/list.json {LISTS}/l; ln -s l {LISTS}/list.json",
    "nobody may sign": f": >{LISTS}/allowed_signers",
    "who signed the list is revoked": f"ssh-keygen -y -f {HOME}/key | base64 -w0 >{LISTS}/revoked_signers",
    "nobody can say who is revoked": f"rm {LISTS}/revoked_signers",
    "what names further verifiers is broken": f"echo '[' >{LISTS}/verifiers.json",
}
"""What is done to the list of a node; then a listed image is refused by the verifier."""
VERIFIER_DAMAGED = {
    "the verifier is removed": f"rm {VERIFIERS}/casemate",
    "the folder of verifiers is removed": f"rm -r {VERIFIERS}; sleep 1",
    "the folder of verifiers is emptied": f"rm {VERIFIERS}/*; sleep 1",
    "another verifier takes the folder over": (
        f"rm -r {VERIFIERS}; mkdir {VERIFIERS}; ln -s /bin/true {VERIFIERS}/00; sleep 1"
    ),
    "the verifier is emptied": f": >{VERIFIERS}/casemate",
    "the verifier hangs": f"printf '#!/bin/sh\\nexec sleep 60\\n' >{VERIFIERS}/casemate",
    "the verifier lacks its interpreter": f"sed -i '1s/.*/#!.nowhere/' {VERIFIERS}/casemate",
    "the verifier may not be run": f"chmod 0644 {VERIFIERS}/casemate",
    "the verifier crashes": f"printf '#!/usr/bin/python3\\nraise SystemExit(3)\\n' >{VERIFIERS}/casemate",
}
"""What is done to the verifier of a node; then a listed image is refused by containerd."""
LAX = f"printf '#!/bin/sh\\nexit 0\\n' >{VERIFIERS}/00; chmod 0755 {VERIFIERS}/00"
"""A verifier that lets everything through, before ours; an image that is not listed is refused all the same."""


class Damage(NamedTuple):
    """What is done on a host that only a check can tell, since root may do anything there.

    `names` are the controls that then fail, those of `later` only once K3s, which writes such files when it starts, has
    run for two minutes. Files of somebody's own, which apply leaves alone, are `removed` before it.
    """

    title: str
    done: str
    names: frozenset[str]
    removed: str = "true"
    later: frozenset[str] = frozenset()


INSTALLED, ANSWERS, ASKED = "IMAGES-VERIFIER-INSTALLED", "IMAGES-VERIFIER-ANSWERS", "IMAGES-VERIFIER-ASKED"
RUNNING = "IMAGES-RUNNING-LISTED"
LET_THROUGH = '[plugins."io.containerd.cri.v1.images"]\\nuse_local_image_pull = true\\n'
LOGIN = '{"configs": {"registry.example.org:5000": {"auth": {"username": "a", "password": "canary"}}}}'
RESTART = "systemctl restart {unit}; for i in $(seq 90); do k3s crictl info >/dev/null 2>&1 && break; sleep 1; done"
NAMED = (
    (
        Damage("the verifier is replaced by one that lets all through",
               f"printf '#!/bin/sh\\nexit 0\\n' >{VERIFIERS}/casemate", frozenset({INSTALLED, ANSWERS})),
        Damage("the folder of verifiers is removed while nobody watches",
               f"systemctl stop casemate-image-verifiers.path; rm -r {VERIFIERS}",
               frozenset({INSTALLED, ANSWERS, "IMAGES-WATCH-RUNNING"})),
    ),
    (
        Damage("an older list, once signed, is put back",
               _signed(EMPTY), frozenset({"IMAGES-LIST-INSTALLED", RUNNING})),
        Damage("a drop-in of containerd turns the verifier off",
               f"printf 'version = 3\\n{LET_THROUGH}' >{DROPIN}; {RESTART}",
               frozenset({ASKED, "CONTAINERD-DROPINS-DECLARED"}), f"rm {DROPIN}"),
    ),
    (
        Damage("nothing binds the policy of registries any more",
               "k3s kubectl delete validatingadmissionpolicybinding casemate-registries",
               frozenset({"REGISTRIES-PODS-BOUND"})),
        Damage("containerd is told to ask a registry that is not listed",
               f"mkdir {HOSTS}/ghcr.io; echo 'server = \"http://{{at}}\"' >{HOSTS}/ghcr.io/hosts.toml",
               frozenset({"REGISTRIES-RUNTIME-LIMITED", "REGISTRIES-TLS-VERIFIED"}),
               f"rm -r {HOSTS}/ghcr.io", frozenset({"CONTAINERD-NETWORKS-VOUCHED"})),
    ),
    (
        Damage("nothing binds the policy of tags any more",
               "k3s kubectl delete validatingadmissionpolicybinding casemate-images-by-digest",
               frozenset({"IMAGES-TAGS-BOUND"})),
        Damage("a login in registries.yaml has containerd pull without asking",
               f"printf '%s' '{LOGIN}' >/etc/rancher/k3s/registries.yaml; {RESTART}",
               frozenset({ASKED, "REGISTRIES-FILE-OWNED", "REGISTRIES-RUNTIME-LIMITED"})),
    ),
)  # fmt: skip
"""Each time on the server, and on the agent."""
