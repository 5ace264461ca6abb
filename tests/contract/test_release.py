"""What is released works where there is no checkout, has all that it needs, and is the same bytes each time."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from casemate import ROOT

UV = ROOT / ".venv-uv/bin/uv"
CONTENT = ("playbooks/", "roles/", "library/", "module_utils/", "tests/behaviour/", "src/casemate/ansible/")
NEVER = re.compile(r"(^|/)(lab|molecule|double|bench|unit|contract|lab_\w+|molecule_\w+)(/|\.py$)")
Built = dict[str, Path]


def built(folder: Path) -> Built:
    """Wheel, sdist, collection and definition of a commit of the same moment; by the end of their names."""
    made = subprocess.run(
        [ROOT / ".ci/release", folder],
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return built(tmp_path_factory.mktemp("release"))


def one(release: Built, end: str) -> Path:
    (path,) = (path for name, path in release.items() if name.endswith(end) and "k3s" not in name)
    return path


def collection(release: Built) -> Path:
    (path,) = (path for name, path in release.items() if name.startswith("casemate-k3s-"))
    return path


def tracked() -> list[str]:
    said = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in said.splitlines() if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


@pytest.fixture(scope="module")
def installed(release: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an empty environment with the wheel and what it depends on, as locked."""
    folder = tmp_path_factory.mktemp("installed")
    wanted = folder / "requirements.txt"
    python = folder / "venv/bin/python"
    for arguments in (
        ("venv", "--quiet", "--python", sys.executable, folder / "venv"),
        ("export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--output-file", wanted),
        ("pip", "install", "--quiet", "--python", python, "--requirement", wanted),
        ("pip", "install", "--quiet", "--python", python, "--no-deps", one(release, ".whl")),
    ):
        subprocess.run([UV, *arguments], cwd=ROOT, check=True)
    return python.parent


def run(scripts: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the installed environment, of which the operator's environment says nothing."""
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
    command = [str(scripts / arguments[0]), *arguments[1:]]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)


def test_a_release_is_the_same_bytes_each_time(release: Built, tmp_path: Path) -> None:
    again = built(tmp_path)
    assert again.keys() == release.keys()
    digests = [{n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in one.items()} for one in (release, again)]
    assert digests[0] == digests[1]
    listed = {line.split()[1]: line.split()[0] for line in release["SHA256SUMS"].read_text().splitlines()}
    assert listed == {name: digest for name, digest in digests[0].items() if name != "SHA256SUMS"}


def test_the_wheel_has_all_of_the_content_and_nothing_of_the_lab(release: Built) -> None:
    with zipfile.ZipFile(one(release, ".whl")) as wheel:
        names = set(wheel.namelist())
        entries = wheel.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    missing = {f"casemate/project/{name}" for name in tracked() if name.startswith(CONTENT)} - names
    assert missing == set()
    assert [name for name in names if NEVER.search(name)] == []
    assert "molecule" not in entries


def test_the_sdist_has_all_that_the_wheel_is_built_from(release: Built) -> None:
    with tarfile.open(one(release, ".tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {name for name in tracked() if name.startswith((*CONTENT, "src/"))} - names == set()


def test_the_collection_has_full_names_only(release: Built) -> None:
    with tarfile.open(collection(release)) as made:
        texts = {
            member.name: made.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in made.getmembers()
            if member.isfile()
        }
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


def test_the_execution_environment_takes_the_collection_from_beside_it(release: Built) -> None:
    """ansible-builder copies it into its context, below which Galaxy's names are looked for."""
    told = yaml.safe_load(release["execution-environment.yml"].read_text())
    (brought,) = told["additional_build_files"]
    (wanted,) = told["dependencies"]["galaxy"]["collections"]
    assert brought["src"] == collection(release).name
    assert wanted == {"name": f"{brought['dest']}/{brought['src']}", "type": "file"}


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
    told = parts["DOCUMENTATION"]
    assert told["author"].endswith("(!UNKNOWN)")
    attributes = told.get("attributes") or {}
    for name, one in [*(told.get("options") or {}).items(), *attributes.items(), *parts.get("RETURN", {}).items()]:
        assert set(one) <= known, name
        assert one["description"], name


class TestInstalled:
    """Without a checkout, in an empty folder."""

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (("--version",), "casemate, version"),
            (("explain", "SSH-ROOT-REFUSED"), "Root cannot log in over SSH"),
            (("apply", "--help"), "Plan, change what differs, and verify."),
        ],
    )
    def test_it_says_what_it_is(self, installed: Path, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
        done = run(installed, tmp_path, "casemate", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert told in done.stdout

    def test_without_an_inventory_it_says_how_to_make_one(self, installed: Path, tmp_path: Path) -> None:
        for verb in ("apply", "check", "prove"):
            done = run(installed, tmp_path, "casemate", verb)
            assert done.returncode == 1
            assert "give -i INVENTORY (casemate init writes one)" in done.stderr

    def test_preflight_refuses_a_wrong_inventory(self, installed: Path, tmp_path: Path) -> None:
        made = run(installed, tmp_path, "casemate", "init", "--server", "127.0.0.1", "--admin-source", "192.0.2.0/24")
        assert made.returncode == 0, made.stderr
        hosts = tmp_path / "hosts.yml"
        hosts.write_text(hosts.read_text().replace("192.0.2.0/24", "192.0.2.1/24"))
        done = run(installed, tmp_path, "casemate", "check", "-i", "hosts.yml")
        assert done.returncode == 1
        assert "casemate_admin_sources[0] is '192.0.2.1/24'; allowed: an address or a network" in done.stderr

    def test_its_attacks_are_found(self, installed: Path, tmp_path: Path) -> None:
        """None is run: nothing is attacked by a test that knows no machine."""
        run(installed, tmp_path, "casemate", "init", "--server", "127.0.0.1", "--admin-source", "192.0.2.0/24")
        done = run(installed, tmp_path, "casemate", "prove", "-i", "hosts.yml", "-v", "--", "--collect-only", "-q")
        assert "tests/behaviour/test_access.py::" in done.stderr
        assert re.search(r"\d+ tests collected", done.stderr)
