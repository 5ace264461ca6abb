"""Which images a real K3s runs, and who refuses the others: admission, containerd, the verifier, or a check that names it.

Two machines, and a registry on their controller with TLS and an authority of its own. What is tried stands in
pull_cases.py. `make images` runs this alone and writes the table that it prints to docs/images.md; with
--ansible-inventory it runs on a lab that was applied.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from lab import image_archive, registry
from lab import pull_cases as cases
from lab.applied import Lab, failing
from unit import signing

from casemate_lab import for_tests

pytestmark = pytest.mark.lab

HERE = Path(__file__).parent
BASE = "docker.io/library/busybox:1.36"
"""An image that nodes have before the first pull."""
SAFE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
UNITS = {"server": "k3s", "agent": "k3s-agent"}
HEAD = """# Which images run, and who refuses the others

Made by `make images` on a real K3s in the lab: a server, an agent, and a registry with TLS and an authority of its own, which
`casemate_registries` lists with one path of it. Some of its images stand on a signed list (`casemate_image_list`), and
`casemate_image_digests_only` is set. Before, with none of these inputs, containerd pulled from that registry by all of its
names. `said` is what the refusal says, or which controls a check then names; the next apply puts these right.
"""


class Row(NamedTuple):
    """What came of a case: who decided, what was said, and whether it is as it should be."""

    by: str
    said: str
    right: bool


class Story:
    """A lab with a registry, a signed list of images, and what was tried so far."""

    def __init__(self, inventory: str, folder: Path) -> None:
        self.plain, self.folder = Lab(inventory), folder
        self.hosts = {"server": self.plain.server, "agent": self.plain.agent}
        self.address = self.plain.known["casemate_admin_sources"][0].partition("/")[0]
        self.rows: dict[str, Row] = {}
        self.key, self.stranger = signing.key(folder, "key"), signing.key(folder, "stranger")
        exported = self.plain.root(self.hosts["server"], f"k3s ctr -n k8s.io images export - {BASE} | base64 -w0")
        layer = image_archive.first_layer(base64.b64decode(exported))
        digests = image_archive.write(folder / "images.tar", layer, ("good", "moved", "bad", "imported"))
        self.names = {"reg": cases.REGISTRY, "stranger": cases.STRANGER, "below": cases.BELOW, **digests}
        self.names["at"] = f"{self.address}:{cases.PORT}"
        self.tags({"1": "good", "2": "moved"})
        self.lab = Lab(inventory, str(self.inputs()))

    def filled(self, text: str, unit: str = "") -> str:
        """A text with names and digests in their places."""
        for name, value in {**self.names, "unit": unit}.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def tags(self, app: dict[str, str]) -> None:
        """Let the tags of an image lead to others."""
        of_app = {tag: self.names[name] for tag, name in app.items()}
        everywhere = {name: {} for name in ("org/other", "org/x/app", "organisation/app", "library/nginx")}
        known = {**everywhere, "org/app": of_app, "org/index": {"1": self.names["index"]}}
        (self.folder / "tags.json").write_text(json.dumps(known))

    def inputs(self) -> Path:
        """Sign a list of images, and write the inventory that says what may be pulled."""
        path = self.folder / "images.json"
        until = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=9)).date().isoformat()
        argv = [str(Path(sys.executable).with_name("casemate")), "images", "allow"]
        argv += map(self.filled, ("{reg}/org/app@{good}", "{reg}/org/index@{index}"))
        argv += ["--list", str(path), "--until", until, "--reason", "the lab's", "--owner", "ops"]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        signing.sign(path, self.key, "casemate-images")
        known = Path(self.plain.known["casemate_allowed_signers"]).read_text()
        public = self.key.with_name("key.pub").read_text()
        (self.folder / "signers").write_text(f'{known}ops@example.org namespaces="casemate-images" {public}')
        given = {
            "casemate_registries": [
                {"host": cases.REGISTRY, "path": "org", "ca_file": str(self.folder / "ca.pem")},
            ],
            "casemate_allowed_signers": str(self.folder / "signers"),
            "casemate_image_list": str(path),
            "casemate_image_digests_only": True,
        }
        (self.folder / "more.yml").write_text(yaml.safe_dump({"all": {"vars": given}}))
        return self.folder / "more.yml"

    @contextlib.contextmanager
    def registry(self) -> Iterator[None]:
        """The registry on the controller, by all of its names, whose authority nodes know where they are told."""
        names = [one.partition(":")[0] for one in (cases.REGISTRY, cases.STRANGER, cases.BELOW)]
        registry.certify(self.folder, names, self.address)
        argv = [sys.executable, str(HERE / "registry.py"), self.address, str(cases.PORT)]
        argv += [str(self.folder / name) for name in ("server.pem", "server.key", "images.tar", "tags.json")]
        with (self.folder / "asked").open("w") as log, subprocess.Popen(argv, stderr=log) as serving:
            try:
                for host in self.hosts.values():
                    self.plain.root(host, f"echo '{self.address} {' '.join(names)} # the story of images' >>/etc/hosts")
                    self.send(host, "ca.pem", (self.folder / "ca.pem").read_text())
                for name in ("key", "stranger"):
                    self.send(self.hosts["server"], name, (self.folder / name).read_text())
                yield
            finally:
                serving.terminate()
                for host in self.hosts.values():
                    self.plain.root(host, f"sed -i '/# the story of images/d' /etc/hosts; rm -rf {cases.HOME}")

    def send(self, host: str, name: str, text: str) -> None:
        """A file for root."""
        self.plain.root(
            host, f"mkdir -p {cases.HOME}; umask 077; cat >{cases.HOME}/{name} <<'END'\n{text.rstrip()}\nEND"
        )

    def run(self, script: str, host: str = "server") -> tuple[bool, str]:
        """Whether a script succeeds on a host, and what it says."""
        unit = UNITS[host]
        said = self.plain.root(self.hosts[host], f'set +e\n({self.filled(script, unit)}) 2>&1\necho "ended $?"\n')
        words, _, code = said.strip().rpartition("ended ")
        return code == "0", " ".join(words.split())

    def pull(self, image: str, host: str = "server") -> tuple[bool, str]:
        """Whether containerd pulls an image, as the kubelet asks it to."""
        return self.run(f"k3s crictl pull {image}", host)

    def pod(self, name: str, asked: cases.Pod, policy: str = "Always", host: str = "server") -> dict[str, Any]:
        """The object of a pod."""
        made = [
            {"name": "main", "image": asked.image},
            *([{"name": "first", "image": asked.first}] if asked.first else []),
        ]
        for one in made:
            command = ["/bin/busybox", "true" if one["name"] == "first" else "sleep", "9999"]
            one |= {"command": command, "imagePullPolicy": policy, "securityContext": SAFE}  # type: ignore[dict-item]
        spec: dict[str, Any] = {"containers": made[:1], "initContainers": made[1:], "terminationGracePeriodSeconds": 0}
        spec |= {"automountServiceAccountToken": False, "nodeName": self.hosts[host]}
        about = {"name": name, "namespace": asked.namespace}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}

    def admitted(self, asked: cases.Pod, name: str = "tried", really: bool = False) -> tuple[bool, str]:
        """Whether the API server takes a pod, or a change of the pod that runs; nothing is made of it unless `really`."""
        dry = "" if really else " --dry-run=server"
        if asked.added:
            added = {"name": "added", "image": asked.added, "imagePullPolicy": "Always", "securityContext": SAFE}
            added |= {"command": ["/bin/busybox", "sleep", "9999"]}  # type: ignore[dict-item]
            change = json.dumps({"spec": {"ephemeralContainers": [{**added, "name": name}]}})
            return self.run(f"k3s kubectl patch pod runs --subresource=ephemeralcontainers{dry} -p '{change}'")
        if asked.changed:
            change = json.dumps({"spec": {"containers": [{"name": "main", "image": asked.changed}]}})
            return self.run(f"k3s kubectl patch pod runs{dry} -p '{change}'")
        return self.run(f"k3s kubectl create{dry} -f - <<'END'\n{json.dumps(self.pod(name, asked))}\nEND\n")

    def becomes(self, name: str, container: str = "", seconds: int = 90) -> str:
        """What becomes of a pod, or of a container added to it: running, or why it is not pulled."""
        kind = "ephemeralContainerStatuses" if container else "containerStatuses"
        chosen = f'{{.status.{kind}[?(@.name=="{container or "main"}")].state}}'
        first = "" if container else "{.status.initContainerStatuses[0].state.waiting}"
        ask = f"k3s kubectl get pod {name} -o jsonpath='{first}{chosen}'"
        script = f"for i in $(seq {seconds}); do said=$({ask}); "
        script += (
            'case "$said" in *running*|*ErrImagePull*|*ImagePullBackOff*) break;; esac; sleep 1; done; echo "$said"'
        )
        return self.run(script)[1]

    def tell(self, title: str, by: str, said: str, right: bool) -> bool:
        """Add a row to the table."""
        self.rows[title] = Row(by, said, right)
        return right

    def asked(self) -> int:
        """How many lines the registry has told so far."""
        return len((self.folder / "asked").read_text().splitlines())

    def named(self) -> dict[str, set[str]]:
        """Kind of host -> the controls that a check names there."""
        _, report = self.lab.casemate("check")
        found = {
            host["name"]: {one["control"] for one in host["findings"] if one["status"] in ("fail", "error")}
            for host in report["hosts"]
        }
        return {kind: found[name] for kind, name in self.hosts.items()}


@pytest.fixture(scope="module")
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("images")
    given = request.config.getoption("ansible_inventory")
    with contextlib.ExitStack() as stack:
        lab = for_tests.machines("images", servers=1, agents=1, workdir=folder / "work")
        inventory = str(given or stack.enter_context(lab))
        if not yaml.safe_load(Path(inventory).read_text())["all"]["vars"]["lab_real_k3s"]:
            pytest.skip("api_semantics: a double has no containerd")
        report = Lab(inventory).ends(0, "apply")
        unasked = {one["control"] for host in report["hosts"] for one in host["findings"] if one["code"] == "unasked"}
        assert {"IMAGES-LIST-SIGNED", "REGISTRIES-PODS-LIMITED", "REGISTRIES-FILE-OWNED"} <= unasked
        made = Story(inventory, folder)
        with made.registry():
            before(made)
            made.lab.ends(0, "apply")
            yield made


def before(story: Story) -> None:
    """While nothing is asked for, all names of the registry are pulled from; a pod runs by a tag."""
    for name in (cases.STRANGER, cases.BELOW, "{at}"):
        path = story.filled(f"{cases.HOSTS}/{name}")
        told = f'server = "https://{story.filled(name)}"\\nca = "{cases.HOME}/ca.pem"\\n'
        story.plain.root(story.hosts["server"], f"mkdir -p {path}; printf '{told}' >{path}/hosts.toml")
    for image in list(cases.NOBODY_ASKED.values())[:3]:
        pulled, said = story.pull(image)
        assert pulled, said
    story.run(f"rm -r {cases.HOSTS}/*:{cases.PORT}; k3s crictl rmi --prune")
    by_tag = story.pod("by-tag", cases.Pod(BASE), policy="Never")
    taken, said = story.run(f"k3s kubectl create -f - <<'END'\n{json.dumps(by_tag)}\nEND\n")
    assert taken, said
    assert "running" in story.becomes("by-tag")
    story.run("k3s kubectl create namespace later; sleep 1")


TWINS = "runs, as it should"


def test_what_is_listed_runs(story: Story) -> None:
    wrong = []
    for title, image in cases.PULLED.items():
        pulled, said = story.pull(image)
        wrong += [] if story.tell(title, TWINS, "" if pulled else said, pulled) else [said]
    for name, asked, title in (
        ("runs", cases.Pod(), "a pod by a listed digest"),
        ("first-runs", cases.Pod(first="{reg}/org/index@{index}"), "a container that comes first, by a listed index"),
        ("later-runs", cases.Pod(namespace="later"), "a pod in a namespace made later"),
    ):
        taken, said = story.admitted(asked, name, really=True)
        said = story.becomes(f"{name} -n {asked.namespace}") if taken else said
        wrong += [] if story.tell(title, TWINS, "" if "running" in said else said, "running" in said) else [said]
    taken, said = story.admitted(cases.Pod(added="{reg}/org/app@{good}"), "joins", really=True)
    said = story.becomes("runs", "joins") if taken else said
    title = "a container added while it runs, by a listed digest"
    wrong += [] if story.tell(title, TWINS, "" if "running" in said else said, "running" in said) else [said]
    for title, change in (
        ("a pod that ran by a tag before gets a label", "k3s kubectl label pod by-tag a=b"),
        ("a pod that ran by a tag before gets a finalizer, and loses it",
         "k3s kubectl patch pod by-tag -p '{\"metadata\": {\"finalizers\": [\"example.org/a\"]}}' && "
         "k3s kubectl patch pod by-tag -p '{\"metadata\": {\"finalizers\": null}}'"),
        ("a deployment that names a tag gets a label",
         f"k3s kubectl create deployment by-tag --image {BASE} --replicas 0 && k3s kubectl label deployment by-tag a=b"),
        ("K3s' own image by its tag in kube-system",
         "k3s kubectl run -n kube-system --dry-run=server own --image rancher/mirrored-pause:3.6"),
    ):  # fmt: skip
        taken, said = story.run(change)
        wrong += [] if story.tell(title, TWINS, "" if taken else said, taken) else [said]
    put_static(story, "static-runs", "{reg}/org/app@{good}")
    said = story.becomes(f"static-runs-{story.hosts['agent']}")
    title = "a static pod by a listed digest"
    wrong += [] if story.tell(title, TWINS, "" if "running" in said else said, "running" in said) else [said]
    story.run(f"rm {cases.STATIC}/static-runs.json", "agent")
    assert not wrong


def put_static(story: Story, name: str, image: str) -> None:
    """Have the agent's kubelet run a pod of which the API server is not asked."""
    pod = story.pod(name, cases.Pod(image), host="agent")
    pod["spec"].pop("nodeName")
    script = f"mkdir -p {cases.STATIC}; cat >{cases.STATIC}/{name}.json <<'END'\n{json.dumps(pod)}\nEND\n"
    done, said = story.run(script, "agent")
    assert done, said


@pytest.mark.parametrize(("tried", "policy"), [(cases.ELSEWHERE, cases.LIST_POLICY), (cases.TAGGED, cases.TAG_POLICY)])
def test_admission_refuses(story: Story, tried: dict[str, cases.Pod], policy: str) -> None:
    wrong = []
    for title, asked in tried.items():
        taken, said = story.admitted(asked)
        by = "admission: " + policy.split("'")[1]
        wrong += [] if story.tell(title, by, said, not taken and policy in said) else [(title, said)]
    assert not wrong


def test_containerd_asks_no_other_registry(story: Story) -> None:
    wrong = []
    for title, image in cases.NOBODY_ASKED.items():
        before = story.asked()
        pulled, said = story.pull(image)
        right = not pulled and "does-not-list-this-registry" in said and story.asked() == before
        wrong += [] if story.tell(title, "containerd: nobody is asked", said, right) else [(title, said)]
    before = story.asked()
    put_static(story, "static-elsewhere", "{stranger}/org/app@{good}")
    asked = "journalctl -u {unit} --since -5min -o cat | grep static-elsewhere | grep -m 1 does-not-list-this-registry"
    refused, said = story.run(f"for i in $(seq 60); do {asked} && exit 0; sleep 1; done; exit 1", "agent")
    story.run(f"rm {cases.STATIC}/static-elsewhere.json", "agent")
    right = refused and story.asked() == before
    title = "a static pod from another registry"
    wrong += [] if story.tell(title, "containerd: nobody is asked", said, right) else [(title, said)]
    assert not wrong


REJECTED = "rejected image"
VERIFIER = "verifier of images"


def test_the_verifier_refuses_what_is_not_listed(story: Story) -> None:
    wrong = []
    for title, image in cases.UNLISTED.items():
        pulled, said = story.pull(image)
        wrong += [] if story.tell(title, VERIFIER, said, not pulled and REJECTED in said) else [(title, said)]
    story.tags({"1": "moved", "2": "moved"})
    pulled, said = story.pull("{reg}/org/app:1")
    story.tags({"1": "good", "2": "moved"})
    title = "crictl: the tag that was pulled before, once it is moved"
    wrong += [] if story.tell(title, VERIFIER, said, not pulled and REJECTED in said) else [(title, said)]
    for name, asked, title in (
        ("bad", cases.Pod("{reg}/org/app@{bad}"), "a pod by a digest that is not listed"),
        (
            "bad-first",
            cases.Pod(first="{reg}/org/app@{bad}"),
            "a container that comes first, by a digest that is not listed",
        ),
    ):
        taken, said = story.admitted(asked, name, really=True)
        said = story.becomes(name) if taken else said
        wrong += [] if story.tell(title, VERIFIER, said, taken and REJECTED in said) else [(title, said)]
    taken, said = story.admitted(cases.Pod(added="{reg}/org/app@{bad}"), "bad", really=True)
    said = story.becomes("runs", "bad") if taken else said
    title = "a container added while it runs, by a digest that is not listed"
    wrong += [] if story.tell(title, VERIFIER, said, taken and REJECTED in said) else [(title, said)]
    put_static(story, "static-bad", "{reg}/org/app@{bad}")
    said = story.becomes(f"static-bad-{story.hosts['agent']}")
    title = "a static pod by a digest that is not listed"
    wrong += [] if story.tell(title, VERIFIER, said, REJECTED in said) else [(title, said)]
    story.run(f"rm {cases.STATIC}/static-bad.json", "agent")
    story.run("k3s kubectl delete pod --now bad bad-first")
    assert not wrong


def damaged(story: Story, damage: str, image: str) -> tuple[bool, str]:
    """Whether an image is pulled on the server while its list or verifier is damaged, and what is said."""
    kept, there = f"{cases.HOME}/kept", f"{cases.LISTS} {cases.VERIFIERS}"
    back = f"rm -rf {there}; cp -a {kept}/images {cases.LISTS}; cp -a {kept}/image-verifiers {cases.VERIFIERS}"
    keep = f"rm -rf {kept}; mkdir -m 700 {kept}; cp -a {there} {kept}; trap '{back}' EXIT"
    return story.run(f"{keep}; {damage}; k3s crictl pull {image}")


def test_a_list_or_verifier_that_is_not_right_refuses_everything(story: Story) -> None:
    wrong = []
    for title, damage in cases.LIST_DAMAGED.items():
        pulled, said = damaged(story, damage, "{reg}/org/app@{good}")
        wrong += [] if story.tell(title, VERIFIER, said, not pulled and REJECTED in said) else [(title, said)]
    for title, damage in cases.VERIFIER_DAMAGED.items():
        pulled, said = damaged(story, damage, "{reg}/org/app@{good}")
        right = not pulled and "verifier" in said
        wrong += [] if story.tell(title, "containerd: its verifiers", said, right) else [(title, said)]
    pulled, said = damaged(story, cases.LAX, "{reg}/org/app@{bad}")
    title = "a lax verifier before ours"
    wrong += [] if story.tell(title, VERIFIER, said, not pulled and REJECTED in said) else [(title, said)]
    assert not wrong


def test_containerd_does_not_start_without_its_verifiers(story: Story) -> None:
    off = 'version = 3\\ndisabled_plugins = ["io.containerd.image-verifier.v1.bindir"]\\n'
    script = f"printf '{off}' >{cases.DROPIN}; systemctl --no-block restart {{unit}}; sleep 20; k3s crictl info"
    started, _ = story.run(script, "agent")
    tail = "grep -h 'image-verifier' /var/lib/rancher/k3s/agent/containerd/containerd.log | tail -n 1"
    _, said = story.run(tail, "agent")
    story.run(f"rm {cases.DROPIN}; {cases.RESTART}", "agent")
    assert story.tell("a drop-in disables the plugin of verifiers", "containerd does not start", said, not started), (
        said
    )


def test_a_check_names_what_only_a_check_can_tell(story: Story) -> None:
    nothing: dict[str, set[str]] = {"server": set(), "agent": set()}
    assert story.named() == nothing
    wrong = []
    for both in cases.NAMED:
        tried = {"server": both.server, "agent": both.agent}
        for host, (title, damage, _) in tried.items():
            done, said = story.run(damage, host)
            assert done, (title, said)
        found = story.named()
        for host, (title, _, expected) in tried.items():
            said, right = ", ".join(sorted(found[host])), found[host] == expected
            wrong += [] if story.tell(title, "check", said, right) else [(title, said)]
        story.lab.casemate("apply")
        after = story.named()
        wrong += [(tuple(title for title, _, _ in tried.values()), after)] if after != nothing else []
    assert not wrong


def test_an_image_that_was_imported_is_found_by_what_runs(story: Story) -> None:
    pulled = "k3s ctr -n k8s.io images pull --local --hosts-dir {hosts} {reg}/org/app@{imported}"
    done, said = story.run(pulled.replace("{hosts}", cases.HOSTS))
    assert done, said
    pod = story.pod("imported", cases.Pod("{reg}/org/app@{imported}"), policy="Never")
    story.run(f"k3s kubectl create -f - <<'END'\n{json.dumps(pod)}\nEND\n")
    assert "running" in story.becomes("imported")
    found = story.named()["server"]
    story.run("k3s kubectl delete pod --now imported")
    said = ", ".join(sorted(found))
    assert story.tell("an image that was imported by hand", "check", said, found == {cases.RUNNING}), said


def test_nothing_is_left_once_nothing_is_asked_for(story: Story) -> None:
    report = story.plain.ends(0, "apply")
    assert not failing(report)
    left = f"{cases.LISTS}/list.json {cases.VERIFIERS}/casemate /etc/rancher/k3s/registries.yaml"
    done, said = story.run(f"for one in {left}; do test ! -e $one || exit 1; done; k3s crictl pull {BASE} || true")
    assert done, said
    for kind in ("validatingadmissionpolicy", "validatingadmissionpolicybinding"):
        _, said = story.run(f"k3s kubectl get {kind} -o name")
        assert "casemate-" not in said


def test_the_table(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    table = ["| | case | who decides | said |", "|---|---|---|---|"]
    for number, (title, row) in enumerate(story.rows.items(), 1):
        wrong = "" if row.right else "**not as it should be**: "
        table.append(f"| {number} | {title} | {row.by} | {wrong}{shown(story, row.said)} |")
    with capsys.disabled():
        print("", *table, sep="\n")
    assert all(row.right for row in story.rows.values())
    assert sum(row.by != TWINS for row in story.rows.values()) >= 30
    if path := os.environ.get("CASEMATE_IMAGES"):
        Path(path).write_text("\n".join([HEAD, *table, ""]))


def shown(story: Story, said: str) -> str:
    """What was said, without addresses and digests of the day, and its end where it is long."""
    for name, value in story.names.items():
        said = said.replace(value, {"reg": cases.REGISTRY, "at": "ADDRESS"}.get(name, name.upper()))
    short = said if len(said) <= 260 else f"… {said[-260:]}"
    return f"`{short.replace('|', '/').replace('`', '')}`" if short else ""
