"""Which images a real K3s runs, and who refuses the others: admission, containerd, the verifier, or a check.

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
from lab import image_archive, registry, sending
from lab import pull_cases as cases
from lab.applied import Lab, failing
from unit import image_names, signing

from casemate import ROOT
from casemate_lab import for_tests

pytestmark = pytest.mark.lab

HERE = Path(__file__).parent
ADMITTING = HERE / "admitting.py"
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
RUNS = "runs, as it should"
POLICIES = {cases.LIST_POLICY: "admission: registries", cases.TAG_POLICY: "admission: tags"}
NOBODY, VERIFIER, CONTAINERD = "containerd: nobody is asked", "verifier of images", "containerd: its verifiers"
REJECTED = "rejected image"
"""What containerd says where a verifier answered, and refused."""
HEAD = """# Which images run, and who refuses the others

Made by `make images` on a real K3s in the lab: a server, an agent, and a registry with TLS and an authority of its own,
which `casemate_registries` lists with one path of it. Two of its images stand on a signed list (`casemate_image_list`).
`casemate_image_digests_only` is set. Before, with none of these inputs, containerd pulled from that registry by all of
its names. `said` is what the refusal says, or which controls a check then names; the next apply puts these right.
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
        self.read: dict[str, bool] = {}
        self.key, self.stranger = signing.key(folder, "key"), signing.key(folder, "stranger")
        layer = image_archive.first_layer(image_archive.exported(self.plain, self.plain.server, BASE))
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
        others: dict[str, dict[str, str]] = {name: {} for name in cases.REPOSITORIES}
        of_app = {tag: self.names[name] for tag, name in app.items()}
        known = {**others, "org/app": of_app, "org/index": {"1": self.names["index"]}}
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
        listed = {"host": cases.REGISTRY, "path": "org", "ca_file": str(self.folder / "ca.pem")}
        given = {
            "casemate_registries": [listed],
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
                    self.send(host, "ca.pem")
                for name in ("key", "stranger"):
                    self.send(self.plain.server, name)
                yield
            finally:
                serving.terminate()
                for host in self.hosts.values():
                    self.plain.root(host, f"sed -i '/# the story of images/d' /etc/hosts; rm -rf {cases.HOME}")

    def send(self, host: str, name: str) -> None:
        """Bring a file of the story's folder for root."""
        text = (self.folder / name).read_text().rstrip()
        script = f"mkdir -p {cases.HOME}; umask 077; cat >{cases.HOME}/{name} <<'END'\n{text}\nEND"
        self.plain.root(host, script)

    def run(self, script: str, host: str = "server") -> tuple[bool, str]:
        """Whether a script succeeds on a host, and what it says."""
        made = self.filled(script, UNITS[host])
        said = self.plain.root(self.hosts[host], f'set +e\n({made}\n) 2>&1\necho "ended $?"\n')
        words, _, code = said.strip().rpartition("ended ")
        return code == "0", " ".join(words.split())

    def pull(self, image: str) -> tuple[bool, str]:
        """Whether the server's containerd pulls an image, as the kubelet asks it to."""
        return self.run(f"k3s crictl pull {image}")

    def create(self, pod: dict[str, Any], options: str = "") -> tuple[bool, str]:
        """Whether the API server takes a pod."""
        return self.run(f"k3s kubectl create{options} -f - <<'END'\n{json.dumps(pod)}\nEND")

    def pod(self, name: str, asked: cases.Pod, policy: str = "Always", host: str = "server") -> dict[str, Any]:
        """The object of a pod."""

        def container(name: str, image: str, *command: str) -> dict[str, Any]:
            made = {"name": name, "image": image, "command": ["/bin/busybox", *command]}
            return {**made, "imagePullPolicy": policy, "securityContext": SAFE}

        spec: dict[str, Any] = {"containers": [container("main", asked.image, "sleep", "9999")]}
        spec["initContainers"] = [container("first", asked.first, "true")] if asked.first else []
        spec |= {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False}
        spec["nodeName"] = self.hosts[host]
        if asked.volume:
            spec["volumes"] = [{"name": "held", "image": {"reference": asked.volume, "pullPolicy": policy}}]
            spec["containers"][0]["volumeMounts"] = [{"name": "held", "mountPath": "/held"}]
        about = {"name": name, "namespace": asked.namespace}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}

    def admitted(self, asked: cases.Pod, name: str = "tried", really: bool = False) -> tuple[bool, str]:
        """Whether the API server takes a pod, or a change of the pod that runs; it is made only if `really`."""
        dry = "" if really else " --dry-run=server"
        if asked.added:
            (added,) = self.pod(name, cases.Pod(asked.added))["spec"]["containers"]
            change = json.dumps({"spec": {"ephemeralContainers": [{**added, "name": name}]}})
            return self.run(f"k3s kubectl patch pod runs --subresource=ephemeralcontainers{dry} -p '{change}'")
        if asked.changed:
            change = json.dumps({"spec": {"containers": [{"name": "main", "image": asked.changed}]}})
            return self.run(f"k3s kubectl patch pod runs{dry} -p '{change}'")
        return self.create(self.pod(name, asked), dry)

    def comes_to(self, name: str, asked: cases.Pod) -> str:
        """What becomes of a pod, or of a container that is added to the pod that runs; or why it is not taken."""
        taken, said = self.admitted(asked, name, really=True)
        if not taken:
            return said
        return self.becomes("runs", name) if asked.added else self.becomes(f"{name} -n {asked.namespace}")

    def becomes(self, name: str, added: str = "") -> str:
        """What becomes of a pod, or of a container added to it: running, or why it is not pulled."""
        kind = "ephemeralContainerStatuses" if added else "containerStatuses"
        chosen = f'{{.status.{kind}[?(@.name=="{added or "main"}")].state}}'
        first = "" if added else "{.status.initContainerStatuses[*].state.waiting}"
        ask = f"k3s kubectl get pod {name} -o jsonpath='{first}{chosen}'"
        ends = 'case "$said" in *running*|*ErrImagePull*|*ImagePullBackOff*) break;; esac; sleep 1'
        return self.run(f'for i in $(seq 90); do said=$({ask}); {ends}; done; echo "$said"')[1]

    def static(self, name: str, image: str) -> None:
        """Have the agent's kubelet run a pod of which the API server is not asked."""
        pod = self.pod(name, cases.Pod(image), host="agent")
        pod["spec"].pop("nodeName")
        script = f"mkdir -p {cases.STATIC}; cat >{cases.STATIC}/{name}.json <<'END'\n{json.dumps(pod)}\nEND"
        done, said = self.run(script, "agent")
        assert done, said

    def tell(self, title: str, by: str, right: bool, said: str) -> None:
        """Add a row to the table."""
        self.rows[title] = Row(by, said, right)

    def runs(self, title: str, right: bool, said: str) -> None:
        """Add a row of something that should run."""
        self.tell(title, RUNS, right, "" if right else said)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """What is told in the block has to be as it should; all of it is told before that fails."""
        before = set(self.rows)
        yield
        wrong = {title: row for title, row in self.rows.items() if title not in before and not row.right}
        assert not wrong, wrong

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
        lab = for_tests.machines("images", servers=1, agents=1, here=True, workdir=folder / "work")
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
    for name in map(story.filled, (cases.STRANGER, cases.BELOW, "{at}")):
        told = f'server = "https://{name}"\\nca = "{cases.HOME}/ca.pem"\\n'
        folder = f"{cases.HOSTS}/{name}"
        story.plain.root(story.plain.server, f"mkdir -p {folder}; printf '{told}' >{folder}/hosts.toml")
    for image in list(cases.NOBODY_ASKED.values())[:3]:
        pulled, said = story.pull(image)
        assert pulled, said
    story.run(f"rm -r {cases.HOSTS}/*:{cases.PORT}; k3s crictl rmi {story.names['good']}")
    taken, said = story.create(story.pod("by-tag", cases.Pod(BASE), policy="Never"))
    assert taken, said
    assert "running" in story.becomes("by-tag")
    story.run("k3s kubectl create namespace later; sleep 1")
    story.read = names_read(story)


def names_read(story: Story) -> dict[str, bool]:
    """Names of images -> whether the policy of registries lets them through, for a list of its own."""
    listed = [
        {"host": host, **({"path": path} if path else {})}
        for host, _, path in (one.rstrip("/").partition("/") for one in image_names.LISTED)
    ]
    more = story.folder / "names.yml"
    more.write_text(yaml.safe_dump({"all": {"vars": {"casemate_registries": listed}}}))
    (server,) = (one for one in sending.machines(story.plain.path, str(more)) if not one.is_agent)
    objects = {}
    for control in server.controls:
        if control["id"] in ("REGISTRIES-PODS-LIMITED", "REGISTRIES-PODS-BOUND"):
            setting = control["setting"]
            objects[setting["path"].rpartition("/")[0]] = setting["body"]
    pods = [story.pod("named", cases.Pod(name)) for name in image_names.NAMES]
    asked = base64.b64encode(json.dumps({"objects": objects, "pods": pods}).encode()).decode()
    story.plain.root(story.plain.server, f"cat >{cases.HOME}/admitting.py <<'END'\n{ADMITTING.read_text()}\nEND")
    said = story.plain.root(story.plain.server, f"echo {asked} | base64 -d | python3 {cases.HOME}/admitting.py")
    return {name: admitted for name, (admitted, _) in zip(image_names.NAMES, json.loads(said), strict=True)}


def test_the_policy_reads_names_as_containerd_does(story: Story) -> None:
    assert {name for name, admitted in story.read.items() if admitted} == image_names.ADMITTED


def test_what_is_listed_runs(story: Story) -> None:
    with story.told():
        for title, image in cases.PULLED.items():
            story.runs(title, *story.pull(image))
        for name, asked, title in (
            ("runs", cases.Pod(), "a pod by a listed digest"),
            (
                "first-runs",
                cases.Pod(first="{reg}/org/index@{index}"),
                "a container that comes first, by a listed index",
            ),
            ("volume-runs", cases.Pod(volume="{reg}/org/index@{index}"), "a volume that is a listed image"),
            ("later-runs", cases.Pod(namespace="later"), "a pod in a namespace made later"),
            ("joins", cases.Pod(added="{reg}/org/app@{good}"), "a container added while it runs, by a listed digest"),
        ):
            said = story.comes_to(name, asked)
            story.runs(title, "running" in said, said)
        for title, change in cases.UNTOUCHED.items():
            story.runs(title, *story.run(change))
        story.static("static-runs", "{reg}/org/app@{good}")
        said = story.becomes(f"static-runs-{story.plain.agent}")
        story.run(f"rm {cases.STATIC}/static-runs.json", "agent")
        story.runs("a static pod by a listed digest", "running" in said, said)


@pytest.mark.parametrize(("tried", "policy"), [(cases.ELSEWHERE, cases.LIST_POLICY), (cases.TAGGED, cases.TAG_POLICY)])
def test_admission_refuses(story: Story, tried: dict[str, cases.Pod], policy: str) -> None:
    with story.told():
        for title, asked in tried.items():
            taken, said = story.admitted(asked)
            story.tell(title, POLICIES[policy], not taken and policy in said, said)


def test_containerd_asks_no_other_registry(story: Story) -> None:
    sink = "does-not-list-this-registry"
    with story.told():
        for title, image in cases.NOBODY_ASKED.items():
            before = story.asked()
            pulled, said = story.pull(image)
            story.tell(title, NOBODY, not pulled and sink in said and story.asked() == before, said)
        before = story.asked()
        story.static("static-elsewhere", "{stranger}/org/app@{good}")
        look = f"journalctl -u {{unit}} --since -5min -o cat | grep static-elsewhere | grep -m 1 {sink}"
        refused, said = story.run(f"for i in $(seq 60); do {look} && exit 0; sleep 1; done; exit 1", "agent")
        story.run(f"rm {cases.STATIC}/static-elsewhere.json", "agent")
        story.tell("a static pod from another registry", NOBODY, refused and story.asked() == before, said)


def test_the_verifier_refuses_what_is_not_listed(story: Story) -> None:
    with story.told():
        for title, image in cases.UNLISTED.items():
            pulled, said = story.pull(image)
            story.tell(title, VERIFIER, not pulled and REJECTED in said, said)
        story.tags({"1": "moved", "2": "moved"})
        pulled, said = story.pull("{reg}/org/app:1")
        story.tags({"1": "good", "2": "moved"})
        title = "crictl: the tag that was pulled before, once it is moved"
        story.tell(title, VERIFIER, not pulled and REJECTED in said, said)
        for name, asked, title in (
            ("bad", cases.Pod("{reg}/org/app@{bad}"), "a pod by a digest that is not listed"),
            ("bad-first", cases.Pod(first="{reg}/org/app@{bad}"), "a container that comes first, by such a digest"),
            ("bad-volume", cases.Pod(volume="{reg}/org/app@{bad}"), "a volume that is an image by such a digest"),
            ("bad-added", cases.Pod(added="{reg}/org/app@{bad}"), "a container added while it runs, by such a digest"),
        ):
            said = story.comes_to(name, asked)
            story.tell(title, VERIFIER, REJECTED in said, said)
        story.static("static-bad", "{reg}/org/app@{bad}")
        said = story.becomes(f"static-bad-{story.plain.agent}")
        story.run(f"rm {cases.STATIC}/static-bad.json", "agent")
        # The kubelet would ask again for what was added to the pod that runs, also while a verifier is damaged.
        story.run("k3s kubectl delete pod --now bad bad-first bad-volume runs")
        story.tell("a static pod by such a digest", VERIFIER, REJECTED in said, said)


def damaged(story: Story, damage: str, image: str) -> tuple[bool, str]:
    """Whether an image is pulled on the server while its list or verifier is damaged, and what is said."""
    kept, there = f"{cases.HOME}/kept", f"{cases.LISTS} {cases.VERIFIERS}"
    extra = f"sleep 1; rm -f {cases.VERIFIERS}/00 {cases.VERIFIERS}/verifiers-are-missing"  # what watches has made
    back = f"rm -rf {cases.LISTS}; cp -a {kept}/images {cases.LISTS}; mkdir -p {cases.VERIFIERS}"
    back += f"; cp -a {kept}/image-verifiers/. {cases.VERIFIERS}/; {extra}"
    keep = f"rm -rf {kept}; mkdir -m 700 {kept}; cp -a {there} {kept}; trap '{back}' EXIT"
    return story.run(f"{keep}; {damage}; k3s crictl pull {image}")


def test_a_list_or_verifier_that_is_not_right_refuses_everything(story: Story) -> None:
    with story.told():
        for title, damage in cases.LIST_DAMAGED.items():
            pulled, said = damaged(story, damage, "{reg}/org/app@{good}")
            story.tell(title, VERIFIER, not pulled and REJECTED in said, said)
        for title, damage in cases.VERIFIER_DAMAGED.items():
            pulled, said = damaged(story, damage, "{reg}/org/app@{good}")
            story.tell(title, CONTAINERD, not pulled and "verifier" in said, said)
        pulled, said = damaged(story, cases.LAX, "{reg}/org/app@{bad}")
        story.tell("a verifier before ours lets everything through", VERIFIER, not pulled and REJECTED in said, said)
    pulled, said = story.pull("{reg}/org/app@{good}")
    assert pulled, said


def test_containerd_does_not_start_without_its_verifiers(story: Story) -> None:
    off = 'version = 3\\ndisabled_plugins = ["io.containerd.image-verifier.v1.bindir"]\\n'
    script = f"printf '{off}' >{cases.DROPIN}; systemctl --no-block restart {{unit}}; sleep 20; k3s crictl info"
    started, _ = story.run(script, "agent")
    log = "/var/lib/rancher/k3s/agent/containerd/containerd.log"
    _, said = story.run(f"grep -h image-verifier {log} | tail -n 1", "agent")
    story.run(f"rm {cases.DROPIN}; {cases.RESTART}", "agent")
    with story.told():
        story.tell("a drop-in disables the plugin of verifiers", "containerd does not start", not started, said)


def test_its_attacks_are_withstood(story: Story) -> None:
    """Those of `casemate prove`, which the other stories leave out: nobody asks for what they attack there."""
    given = yaml.safe_load(Path(story.plain.path).read_text())
    given["all"]["vars"] |= yaml.safe_load((story.folder / "more.yml").read_text())["all"]["vars"]
    whole = Path(story.plain.path).with_name("attacked.yml")  # beside the group_vars
    whole.write_text(yaml.safe_dump(given))
    argv = [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests/behaviour/test_images.py")]
    argv += [f"--ansible-inventory={whole}", "-p", "no:cacheprovider"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout[-3000:]


def test_a_check_names_what_only_a_check_can_tell(story: Story) -> None:
    nothing: dict[str, set[str]] = {"server": set(), "agent": set()}
    assert story.named() == nothing
    with story.told():
        for both in cases.NAMED:
            tried = dict(zip(story.hosts, both, strict=True))
            for host, damage in tried.items():
                done, said = story.run(damage.done, host)
                assert done, (damage.title, said)
            found = story.named()
            for host, damage in tried.items():
                right = damage.names <= found[host] <= damage.names | damage.later
                story.tell(damage.title, "check", right, ", ".join(sorted(found[host])))
                story.run(damage.removed, host)
            _, report = story.lab.casemate("apply")
            assert story.named() == nothing, failing(report)


def test_each_flip_names_its_control_and_no_other(story: Story) -> None:
    """Those of images, which the drift story cannot flip: nobody asks for them there."""
    for host in story.hosts:  # so that something runs on each of them which the list has to allow
        taken, said = story.create(story.pod(f"flipped-{host}", cases.Pod(), host=host))
        assert taken and "running" in story.becomes(f"flipped-{host}"), said
    for machine in sending.machines(story.lab.path, str(story.folder / "more.yml")):
        controls = [one for one in machine.controls if one["id"].startswith(("IMAGES-", "REGISTRIES-", "CONTAINERD-"))]
        controls = [one for one in controls if one.get("vantage", "self") == "self"]
        program = {"__main__.py": HERE / "flips.py"}
        machine.root("sleep 120")  # before, files of containerd may be K3s' own
        found = machine.ran(program, {"controls": controls, "context": machine.context})
        assert not found["wrong"], f"{machine.name}: {found['wrong']}"
    story.run("k3s kubectl delete pod --now " + " ".join(f"flipped-{host}" for host in story.hosts))


def test_an_image_that_was_imported_is_found_by_what_runs(story: Story) -> None:
    image = "{reg}/org/app@{imported}"
    done, said = story.run(f"k3s ctr -n k8s.io images pull --local --hosts-dir {cases.HOSTS} {image}")
    assert done, said
    taken, said = story.create(story.pod("imported", cases.Pod(image), policy="Never"))
    assert taken, said
    assert "running" in story.becomes("imported")
    found = story.named()["server"]
    story.run("k3s kubectl delete pod --now imported")
    taken, said = story.create(story.pod("mounted", cases.Pod(volume=image), policy="Never"))
    assert taken, said
    assert "running" in story.becomes("mounted")
    mounted = story.named()["server"]
    story.run("k3s kubectl delete pod --now mounted")
    with story.told():
        for title, named in (("and runs", found), ("and is a volume of a pod", mounted)):
            right = named == {cases.RUNNING}
            story.tell(f"an image that was imported by hand, {title}", "check", right, ", ".join(sorted(named)))


def test_nothing_is_left_once_nothing_is_asked_for(story: Story) -> None:
    report = story.plain.ends(0, "apply")
    assert not failing(report)
    left = f"{cases.LISTS}/list.json {cases.VERIFIERS}/casemate {cases.WATCH}.path {cases.WATCH}.service"
    left += f" /etc/rancher/k3s/registries.yaml {cases.HOSTS}/_default"
    done, said = story.run(f"for one in {left}; do test ! -e $one || exit 1; done")
    assert done, said
    for kind in ("validatingadmissionpolicy", "validatingadmissionpolicybinding"):
        _, said = story.run(f"k3s kubectl get {kind} -o name")
        assert "casemate-images" not in said and "casemate-registries" not in said


def test_the_table(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    table = ["| | case | who decides | said |", "|---|---|---|---|"]
    for number, (title, row) in enumerate(story.rows.items(), 1):
        wrong = "" if row.right else "**not as it should be**: "
        table.append(f"| {number} | {title} | {row.by} | {wrong}{shown(story, row.said)} |")
    with capsys.disabled():
        print("", *table, sep="\n")
    assert all(row.right for row in story.rows.values())
    assert sum(row.by != RUNS for row in story.rows.values()) >= 30
    if path := os.environ.get("CASEMATE_IMAGES"):
        Path(path).write_text("\n".join([HEAD, *table, ""]))


def shown(story: Story, said: str) -> str:
    """What was said, without addresses and digests of the day, and its end where it is long."""
    for name, value in story.names.items():
        said = said.replace(value, {"at": "ADDRESS"}.get(name, name.upper()) if name not in cases.SHOWN else value)
    short = said if len(said) <= 260 else f"… {said[-260:]}"
    return f"`{short.replace('|', '/').replace('`', '')}`" if short else ""
