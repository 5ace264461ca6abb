"""What is released works where there is no checkout, has all that it needs, and is the same bytes each time."""

from __future__ import annotations

import ast
import glob
import hashlib
import importlib.metadata
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import ansible
import pytest
import yaml
from contract import installing
from contract.installing import Built, built, collection, named, run

from casemate import ROOT, __version__
from casemate.supply import bill

CONTENT = ("playbooks/", "roles/", "library/", "module_utils/", "tests/behaviour/", "src/casemate/ansible/")
NEVER = re.compile(r"(^|/)(lab|molecule|double|bench|unit|contract|lab_\w+|molecule_\w+)(/|\.py$)")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return built(tmp_path_factory.mktemp("release"))


def listed() -> list[str]:
    """What git knows, links among it."""
    said = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in said.splitlines() if os.path.lexists(ROOT / name)]


def tracked() -> list[str]:
    return [name for name in listed() if not (ROOT / name).is_symlink()]


@pytest.fixture(scope="module")
def installed(release: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an empty environment with the wheel and what it depends on, as locked."""
    return installing.with_wheel(release, tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def collected(release: Built, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The scripts of an environment with ansible-core alone, and the home where the collection is, all as in README."""
    home = tmp_path_factory.mktemp("collected")
    scripts = installing.with_ansible(release, home, home)
    for line in installing.COLLECTION:
        installing.shell(release, line, home, scripts)
    return scripts, home


def texts_of(archive: Path) -> dict[str, str]:
    """Each file of an archive, by its name."""
    with tarfile.open(archive) as made:
        return {
            member.name: made.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in made.getmembers()
            if member.isfile()
        }


def another_checkout(folder: Path) -> Path:
    """The same files elsewhere, with other modes and dates, built by the same programs."""
    for name in listed():
        there = folder / name
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, there, follow_symlinks=False)
        if not there.is_symlink():
            there.chmod(0o700 if os.access(ROOT / name, os.X_OK) else 0o600)
    for name in (".venv", ".venv-uv"):
        (folder / name).symlink_to(ROOT / name)
    for command in (("init", "--quiet"), ("add", "--all")):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_a_release_is_the_same_bytes_each_time_and_everywhere(release: Built, tmp_path: Path) -> None:
    there = another_checkout(tmp_path / "another place")
    again = built(tmp_path / "dist", there, 0o077, TZ="Pacific/Auckland", LC_ALL="C", PYTHONHASHSEED="7")
    assert again.keys() == release.keys()
    digests = [{n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in one.items()} for one in (release, again)]
    assert digests[0] == digests[1]
    listed = {line.split()[1]: line.split()[0] for line in release["SHA256SUMS"].read_text().splitlines()}
    assert listed == {name: digest for name, digest in digests[0].items() if name != "SHA256SUMS"}


def test_the_bill_of_materials_is_what_the_lock_brings_to_a_user(release: Built) -> None:
    """By another reader of the lock: uv's own."""
    made = json.loads(release[f"casemate-{__version__}.cdx.json"].read_text())
    command = [str(ROOT / ".venv-uv/bin/uv"), "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    locked = {tuple(one.split("==")) for one in re.findall(r"(?m)^[\w.-]+==[^\s;\\]+", said)}
    assert {(one["name"], one["version"]) for one in made["components"]} == locked
    hashes = {one for entry in made["components"] for file in entry["externalReferences"] for one in hashed(file)}
    assert hashes == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", said))
    assert made["metadata"]["component"]["version"] == __version__
    assert bill.problem(json.dumps(made)) == ""


def test_the_bill_of_materials_follows_extras_that_are_asked_for_and_no_others() -> None:
    extras = {"x": [{"name": "c"}], "y": [{"name": "d"}]}
    a: dict[str, Any] = {"dependencies": [{"name": "b", "version": "2"}], "optional-dependencies": extras}
    asked = [{"name": "a", "extra": ["x"]}, {"name": "b", "version": "2"}]
    listed = [("casemate", "1", {"dependencies": asked}), ("a", "1", a), ("b", "1", {}), ("c", "1", {}), ("d", "1", {})]
    listed.append(("b", "2", {"dependencies": [{"name": "a"}]}))
    lock = {"package": [{"name": name, "version": version, **more} for name, version, more in listed]}
    found = runpy.run_path(str(ROOT / ".ci/sbom.py"))["needed"](lock)
    assert [(one["name"], one["version"]) for one in found] == [("a", "1"), ("b", "2"), ("c", "1")]


def hashed(file: dict[str, Any]) -> set[str]:
    return {one["content"] for one in file["hashes"]}


def test_the_wheel_has_all_of_the_content_and_nothing_of_the_lab(release: Built) -> None:
    with zipfile.ZipFile(named(release, ".whl")) as wheel:
        names = set(wheel.namelist())
        entries = wheel.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    missing = {f"casemate/project/{name}" for name in tracked() if name.startswith(CONTENT)} - names
    assert missing == set()
    assert [name for name in names if NEVER.search(name)] == []
    assert "molecule" not in entries


def test_the_sdist_has_all_that_the_wheel_is_built_from(release: Built) -> None:
    with tarfile.open(named(release, ".tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {name for name in tracked() if name.startswith((*CONTENT, "src/"))} - names == set()


def test_the_collection_has_full_names_only(release: Built) -> None:
    texts = texts_of(collection(release))
    ours = {Path(name).stem for name in texts if name.startswith(("plugins/modules/", "plugins/action/"))}
    roles = {name.split("/")[1] for name in texts if name.startswith("roles/")}
    assert {"k3s_controls", "casemate_preflight"} <= ours
    for name, text in texts.items():
        if name.startswith(("roles/", "playbooks/")) and name.endswith((".yml", ".j2")):
            tasks = "/tasks/" in name or name.startswith("playbooks/")
            assert not tasks or not re.search(rf"(?m)^\s*(?:- )?({'|'.join(ours)}):", text), name
            assert not re.search(rf"_role:\s+\{{?name: ({'|'.join(roles)})\b", text), name
            assert not re.search(r"\b(lookup|query|q)\('(?!ansible\.|casemate\.k3s\.)", text), name
        if name.endswith(".py"):
            short = r"(?m)^\s*(?:from|import) (?:casemate|module_utils|ansible\.module_utils\.casemate)\b"
            assert not re.search(short, text), name
            assert "sys.path.insert" not in text, name


def test_what_the_readme_links_to_is_in_the_collection(release: Built) -> None:
    texts = texts_of(collection(release))
    links = {link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", texts["README.md"]) if "://" not in link}
    assert "docs/lockouts.md" in links
    assert links - texts.keys() == set()


def test_the_collection_has_the_style_that_ansible_asks_for(release: Built, tmp_path: Path) -> None:
    """Its sanity tests take minutes; what ruff has no rule for, and what full names make too long, is here."""
    rules = Path(ansible.__file__).parents[1] / "ansible_test/_util/controller/sanity/pep8/current-ignore.txt"
    left_out = [line for line in rules.read_text().splitlines() if line and not line.startswith("#")]
    subprocess.run(["tar", "-xf", collection(release), "-C", tmp_path], check=True)
    options = ("--max-line-length=160", f"--ignore={','.join(left_out)}")
    command = [sys.executable, "-m", "pycodestyle", *options, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_no_import_of_the_collection_is_left_over(release: Built) -> None:
    """By which a plugin of a checkout finds the packages."""
    for name, text in texts_of(collection(release)).items():
        if name.startswith(("plugins/action/", "plugins/lookup/")) and name.endswith(".py"):
            imports = [node for node in ast.parse(text).body if isinstance(node, (ast.Import, ast.ImportFrom))]
            names = {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}
            unused = {one for one in names - {"annotations"} if len(re.findall(rf"\b{one}\b", text)) == 1}
            assert unused == set(), name


def test_the_collection_names_all_that_its_programs_import(release: Built) -> None:
    """Beside ansible-core, which brings jinja2."""
    texts = texts_of(collection(release))
    nodes = [
        node
        for name, text in texts.items()
        if name.startswith("plugins/") and name.endswith(".py")
        for node in ast.walk(ast.parse(text))
    ]
    named = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    named += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    others = {one.partition(".")[0] for one in named} - sys.stdlib_module_names - {"ansible", "ansible_collections"}
    brought = importlib.metadata.packages_distributions()
    needed = {brought[one][0].lower() for one in others} - {"jinja2"}
    assert needed == {re.split(r"[^\w-]", line)[0] for line in texts["requirements.txt"].split()}


def test_ansible_doc_explains_all_of_the_collection(
    release: Built, collected: tuple[Path, Path], tmp_path: Path
) -> None:
    scripts, home = collected
    names = {Path(name) for name in texts_of(collection(release)) if name.endswith((".py", "argument_specs.yml"))}
    wanted = {
        "module": {path.stem for path in names if path.parent == Path("plugins/modules")},
        "lookup": {path.stem for path in names if path.parent == Path("plugins/lookup")},
        "role": {path.parts[1] for path in names if path.name == "argument_specs.yml"},
    }
    for kind, found in wanted.items():
        assert found
        asked = sorted(f"casemate.k3s.{name}" for name in found)
        done = run(scripts, tmp_path, "ansible-doc", "--json", "--type", kind, *asked, home=home)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout).keys() == {*asked}
        assert [line for line in done.stderr.splitlines() if "casemate" in line] == []


def test_its_playbooks_are_found_by_their_names(release: Built, collected: tuple[Path, Path], tmp_path: Path) -> None:
    scripts, home = collected
    names = (Path(name) for name in texts_of(collection(release)))
    plays = sorted(f"casemate.k3s.{name.stem}" for name in names if name.parent == Path("playbooks"))
    assert {"casemate.k3s.site", "casemate.k3s.bootstrap"} <= {*plays}
    done = run(scripts, tmp_path, "ansible-playbook", "--syntax-check", "-i", "localhost,", *plays, home=home)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_runner_as_of_awx_needs_nothing_but_the_collection(
    release: Built, collected: tuple[Path, Path], tmp_path: Path
) -> None:
    """A project that imports a playbook, an inventory and a credential's account, in a runner's private folder."""
    scripts, home = collected
    installing.shell(release, "pip install ansible-runner", home, scripts)
    assert run(scripts, tmp_path, "python", "-c", "import casemate", home=home).returncode == 1
    hosts = "[k3s_server]\nserver1 ansible_host=127.0.0.1 ansible_port=9\n"
    files = {
        "project/check.yml": "- ansible.builtin.import_playbook: casemate.k3s.check\n",
        "inventory/hosts": f"{hosts}[all:vars]\ncasemate_admin_sources=['192.0.2.0/24']\n",
        "env/cmdline": "-u ops",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = run(scripts, tmp_path, "ansible-runner", "run", ".", "-p", "check.yml", "--ident", "job", home=home)
    events = [json.loads(path.read_text()) for path in tmp_path.glob("artifacts/job/job_events/*.json")]
    failed = [one["event_data"] for one in events if one["event"] in ("runner_on_failed", "runner_on_unreachable")]
    assert [one["task"] for one in failed] == ["Engine | Judge every control"], done.stdout
    assert "port 9: Connection refused" in failed[0]["res"]["msg"]
    assert done.returncode == 4


def test_the_execution_environment_takes_the_collection_from_beside_it(release: Built) -> None:
    """ansible-builder copies it into its context, below which Galaxy's names are looked for."""
    definition = yaml.safe_load(release["execution-environment.yml"].read_text())
    (brought,) = definition["additional_build_files"]
    (wanted,) = definition["dependencies"]["galaxy"]["collections"]
    assert brought["src"] == collection(release).name
    assert wanted == {"name": f"{brought['dest']}/{brought['src']}", "type": "file"}


def test_an_image_is_made_of_what_the_release_has(release: Built, tmp_path: Path) -> None:
    """ansible-builder takes the definition, and those steps of the build that need no image are run as they stand.

    No image is built, since no registry of images is reached from here: what its base is, a Python for itself and no
    list of Debian's packages, is known and not seen.
    """
    for name in ("execution-environment.yml", collection(release).name):
        shutil.copy(release[name], tmp_path)
    builder, folder = tmp_path / "builder/bin", tmp_path / "installed"
    wanted = ("sync", "--quiet", "--frozen", "--only-group", "image", "--python", sys.executable)
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(builder.parent)}
    subprocess.run([installing.UV, *wanted], cwd=ROOT, env=environment, check=True)
    made = run(builder, tmp_path, "ansible-builder", "create", "--output-filename", "Containerfile")
    assert made.returncode == 0, made.stdout + made.stderr
    steps = (tmp_path / "context/Containerfile").read_text()
    assert 'PYCMD="/usr/local/bin/python3"' in steps
    assert 0 < steps.find("RUN apt-get update") < steps.index(" AS galaxy")  # no stage before installs packages

    (galaxy,) = re.findall(r"(?m)^RUN .*(ansible-galaxy collection install .*)$", steps)
    galaxy = galaxy.replace("$ANSIBLE_GALAXY_CLI_COLLECTION_OPTS", "--offline")
    galaxy = galaxy.replace('"/usr/share/ansible/collections"', str(folder))
    done = run(Path(sys.executable).parent, tmp_path / "context/_build", *galaxy.split(), home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    files = {what: tmp_path / what for what in ("bindep", "pip")}
    asked = ["introspect", str(folder), *(f"--write-{what}={file}" for what, file in files.items())]
    introspected = run(builder, tmp_path, "python", str(tmp_path / "context/_build/scripts/introspect.py"), *asked)
    assert introspected.returncode == 0, introspected.stderr
    assert "openssh-client [platform:dpkg]" in files["bindep"].read_text()
    assert "jsonschema>=" in files["pip"].read_text()


def test_the_collection_asks_for_what_the_readme_installs(release: Built, tmp_path: Path) -> None:
    """Galaxy installs nothing of Python: what lacks is named before any host is touched, and then judges the lock."""
    (tmp_path / "hosts.yml").write_text(
        "all: {children: {k3s_server: {hosts: {127.0.0.1: {}}}},"
        " vars: {casemate_admin_sources: [192.0.2.0/24], casemate_k3s_version: v1.0.0+k3s1}}"
    )
    scripts, (install, complete) = installing.with_ansible(release, tmp_path, tmp_path), installing.COLLECTION

    def refusal() -> str:
        done = run(scripts, tmp_path, "ansible-playbook", "casemate.k3s.check", "-i", "hosts.yml")
        assert done.returncode == 2, done.stderr
        assert "Nothing was changed." in done.stdout
        return done.stdout

    installing.shell(release, install, tmp_path, scripts)
    assert f"Install what the collection needs: {complete.replace('~', str(tmp_path))}" in refusal()
    installing.shell(release, complete, tmp_path, scripts)
    assert "K3s v1.0.0+k3s1 is not in the lock" in refusal()


@pytest.mark.parametrize("path", sorted([*ROOT.glob("library/*.py"), *ROOT.glob("src/casemate/ansible/lookup/*.py")]))
def test_what_a_plugin_says_of_itself_is_as_a_collection_wants_it(path: Path) -> None:
    """Ansible's sanity tests take minutes; what is easily written wrong, such as a comma that ends a text, is here."""
    parts = {
        str(node.targets[0].id): yaml.safe_load(ast.literal_eval(node.value)) or {}
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("DOCUMENTATION", "RETURN")
    }
    known = {"description", "type", "required", "default", "elements", "choices", "returned", "support", "details"}
    documentation = parts["DOCUMENTATION"]
    assert documentation["author"].endswith("(!UNKNOWN)")
    attributes = documentation.get("attributes") or {}
    for name, one in [
        *(documentation.get("options") or {}).items(),
        *attributes.items(),
        *parts.get("RETURN", {}).items(),
    ]:
        assert set(one) <= known, name
        assert one["description"], name


class TestInstalled:
    """Without a checkout, in an empty folder."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--version",), "casemate, version"),
            (("explain", "SSH-ROOT-REFUSED"), "Root cannot log in over SSH"),
            (("apply", "--help"), "Plan, change what differs, and verify."),
        ],
    )
    def test_it_says_what_it_is(
        self, installed: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
    ) -> None:
        done = run(installed, tmp_path, "casemate", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert message in done.stdout

    def test_it_generates_no_pages_among_the_packages_of_python(self, installed: Path, tmp_path: Path) -> None:
        assert " docs " not in run(installed, tmp_path, "casemate", "--help").stdout
        done = run(installed, tmp_path, "casemate", "docs")
        assert (done.returncode, "No such command 'docs'" in done.stderr) == (1, True)

    def test_a_home_that_cannot_be_written_keeps_nobody_from_a_host(self, installed: Path, tmp_path: Path) -> None:
        """As of a timer with ProtectHome=; root may write everywhere, but not below a file."""
        (tmp_path / "file").touch()
        nowhere = tmp_path / "file/home"
        for words in (("init", "--server=127.0.0.1", "--admin-source=192.0.2.0/24"), ("check", "-i", "hosts.yml")):
            done = run(installed, tmp_path, "casemate", *words, home=nowhere)
            hosts = (tmp_path / "hosts.yml").read_text()
            (tmp_path / "hosts.yml").write_text(hosts.replace("127.0.0.1", "127.0.0.1\n          ansible_port: 9"))
        assert done.returncode == 3, done.stderr
        assert "port 9: Connection refused" in done.stderr

    def test_without_an_inventory_it_says_how_to_make_one(self, installed: Path, tmp_path: Path) -> None:
        for verb in ("apply", "check", "prove"):
            done = run(installed, tmp_path, "casemate", verb)
            assert done.returncode == 1
            assert "give -i INVENTORY (casemate init writes one)" in done.stderr

    def test_preflight_refuses_a_wrong_inventory(self, installed: Path, tmp_path: Path) -> None:
        made = run(installed, tmp_path, "casemate", "init", "--server", "127.0.0.1", "--admin-source", "192.0.2.0/24")
        assert made.returncode == 0, made.stderr
        hosts = tmp_path / "hosts.yml"
        more = "192.0.2.1/24\n    casemate_zzz: 1\n    k3s_zzz: 1"
        hosts.write_text(hosts.read_text().replace("192.0.2.0/24", more))
        done = run(installed, tmp_path, "casemate", "check", "-i", "hosts.yml")
        assert done.returncode == 1
        shown = re.findall(r"Correct or remove it: (\S+) says what there is", done.stderr)
        assert len(shown) == 2
        assert all(glob.glob(path) and not Path(path).is_relative_to(ROOT) for path in shown)
        assert "casemate_admin_sources[0] is '192.0.2.1/24'; allowed: an address or a network" in done.stderr

    def test_its_attacks_are_found(self, installed: Path, tmp_path: Path) -> None:
        """None is run: nothing is attacked by a test that knows no machine."""
        run(installed, tmp_path, "casemate", "init", "--server", "127.0.0.1", "--admin-source", "192.0.2.0/24")
        done = run(installed, tmp_path, "casemate", "prove", "-i", "hosts.yml", "-v", "--", "--collect-only", "-q")
        assert "tests/behaviour/test_access.py::" in done.stderr
        assert re.search(r"\d+ tests collected", done.stderr)
