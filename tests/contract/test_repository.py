"""What the repository promises: its shape, roles that explain themselves, and nothing of anybody's machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from casemate import ROOT
from casemate.preflight import inputs

ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
FOLDERS = {"playbooks", "roles", "library", "module_utils", "src", "inventory", "molecule", "tests", "docs"}
FILES = {
    "ansible.cfg", "Makefile", "pyproject.toml", "uv.lock", "README.md", "CHANGELOG.md", "CONTRIBUTING.md",
    "SECURITY.md", "LICENSE", "renovate.json",
}  # fmt: skip
HIDDEN = {
    ".ansible-lint", ".ci", ".config", ".editorconfig", ".gitignore", ".pre-commit-config.yaml", ".yamllint",
}  # fmt: skip
MACHINE = re.compile(
    r"/Users/[a-z]|/root/\.(?:cache|pyenv|local/(?!share/systemd|lib/python3))|/work/(?:main|shared|\.)|/tmp/[A-Za-z]*venv",
    re.ASCII,
)


def tracked() -> list[str]:
    said = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in said.splitlines() if (ROOT / name).is_file()]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def by_name(path: Path) -> str:
    return path.name


def options(role: Path) -> dict[str, Any]:
    specs = load(role / "meta/argument_specs.yml")["argument_specs"]
    return {name: spec for entry in specs.values() for name, spec in (entry.get("options") or {}).items()}


def test_the_top_level_is_as_agreed() -> None:
    assert {name.split("/")[0] for name in tracked()} == FOLDERS | FILES | HIDDEN


def test_roles_follow_the_trust_boundaries() -> None:
    known = {"k3s_host", "k3s_access", "k3s_firewall", "k3s_node", "k3s_control_plane", "k3s_cluster", "k3s_detect"}
    assert {role.name for role in ROLES} <= known


@pytest.mark.parametrize("role", ROLES, ids=by_name)
def test_defaults_equal_argument_specs(role: Path) -> None:
    defaults = load(role / "defaults/main.yml") or {}
    known = options(role)
    assert set(defaults) <= set(known)
    # A specification's default is no template, so a default that derives from other inputs stands in defaults alone.
    derived = {name for name, value in defaults.items() if "{{" in str(value) and "default" not in known[name]}
    specified = {name: spec["default"] for name, spec in known.items() if "default" in spec}
    assert {name: value for name, value in defaults.items() if name not in derived} == specified
    assert all(name.startswith(f"{role.name}_") for name in options(role))


@pytest.mark.parametrize("role", ROLES, ids=by_name)
def test_every_input_is_described(role: Path) -> None:
    for name, spec in options(role).items():
        assert len(str(spec.get("description", ""))) >= 10, name


@pytest.mark.parametrize("role", ROLES, ids=by_name)
def test_every_default_is_explained(role: Path) -> None:
    """A comment stands over each default, or over the run of defaults that it is part of."""
    explained = False
    for line in (role / "defaults/main.yml").read_text().splitlines():
        if line.startswith("#"):
            explained = True
        elif not line.strip():
            explained = False
        elif re.match(r"[a-z]", line):
            assert explained, line


@pytest.mark.parametrize("role", ROLES, ids=by_name)
def test_defaults_and_constraints_fit_the_preflight(role: Path) -> None:
    known = inputs.known_inputs()
    for name, value in (load(role / "defaults/main.yml") or {}).items():
        if not (isinstance(value, str) and "{{" in value):
            assert inputs.value_problems(name, value, known[name]) == []
    constraints_file = role / "vars/main/constraints.yml"
    constraints = load(constraints_file)[f"__{role.name}_constraints"] if constraints_file.is_file() else {}
    assert set(constraints or {}) <= set(options(role))
    for constraint in (constraints or {}).values():
        assert constraint
        assert set(constraint) <= {
            "min", "max", "choices", "pattern", "words", "format", "options", "keys", "values", "no_log",
        }  # fmt: skip


def test_shared_inputs_are_well_formed_and_used() -> None:
    known = load(ROOT / "src/casemate/preflight/schema/inputs.yml")
    fields = {
        "type", "elements", "format", "required", "description", "choices", "default", "pattern", "words", "example",
        "keys", "values", "options", "min", "max",
    }  # fmt: skip
    text = "\n".join(
        (ROOT / name).read_text(encoding="utf-8")
        for name in tracked()
        if name.startswith(("roles/", "playbooks/", "src/")) and not name.endswith("inputs.yml")
    )
    for name, spec in known.items():
        assert set(spec) <= fields, name
        assert len(spec["description"]) >= 10
        assert name in text, f"{name} is described and used by nobody"
        if "default" in spec:
            assert inputs.value_problems(name, spec["default"], spec) == []
    used = set(re.findall(r"\bcasemate_[a-z0-9_]+", "\n".join(roles_text())))
    assert used <= set(known) | {"casemate_preflight", "casemate_bootstrap", "casemate_outcome"}


def roles_text() -> list[str]:
    return [
        (ROOT / name).read_text(encoding="utf-8")
        for name in tracked()
        if name.startswith(("roles/", "playbooks/")) and name.endswith((".yml", ".j2"))
    ]


def test_linters_skip_nothing() -> None:
    config = load(ROOT / ".ansible-lint")
    assert config["profile"] == "production"
    assert config["skip_list"] == []
    assert not config.get("warn_list")
    noqa = [name for name in tracked() if name.endswith(".yml") and "# noqa" in (ROOT / name).read_text()]
    assert noqa == []


def test_nothing_of_a_machine_or_of_a_secret_is_in_the_repository() -> None:
    for name in tracked():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        assert not re.search(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\n", text), name
        if name != "tests/contract/test_repository.py":
            assert not (found := MACHINE.search(text)), f"{name}: {found}"


def test_dependencies_are_locked_by_hash() -> None:
    lock = (ROOT / "uv.lock").read_text()
    files = re.findall(r"\{ url = [^\n]+\}", lock)
    assert files
    assert all('hash = "sha256:' in file for file in files)
    assert re.findall(r"--hash=sha256:[0-9a-f]{64}", (ROOT / ".ci/uv.txt").read_text())


def test_playbooks_are_found_with_the_projects_settings() -> None:
    config = (ROOT / "ansible.cfg").read_text()
    assert "host_key_checking = true" in config
    assert "ANSIBLE_CONFIG" in (ROOT / ".config/molecule/config.yml").read_text()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/threat-model.md"])
def test_links_and_targets_of_documents_exist(name: str) -> None:
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (path.parent / target).exists(), target
    for control in re.findall(r"casemate explain ([A-Z]+-[A-Z-]+)|casemate_waivers: \{([A-Z]+-[A-Z-]+)", text):
        assert "".join(control) in inputs.known_controls()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_mitigation_stands_in_the_threat_model() -> None:
    text = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
    threats = load(ROOT / "src/casemate/catalogue/threats.yml")
    for threat in threats:
        for mitigation in threat["mitigations"]:
            assert f"**{mitigation['id']}**" in text
