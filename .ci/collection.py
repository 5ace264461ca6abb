"""Build the Ansible collection casemate.k3s out of a checkout: the same files, by the names that a collection gives.

    collection.py FOLDER    writes casemate-k3s-VERSION.tar.gz and execution-environment.yml into FOLDER

No source knows that it is in a collection. Short names of modules, roles, lookups and Python packages become full ones
here, so nobody writes them by hand. It is a tool of the release, so it stands beside the other ones and not in what is
released. The same commit gives the same bytes: names are sorted and dates are SOURCE_DATE_EPOCH. `ansible-galaxy
collection build` takes names as the file system has them and dates from the clock; hence the archive is written here.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE, NAME = "casemate", "k3s"
PLUGINS = f"ansible_collections.{NAMESPACE}.{NAME}.plugins"
PACKAGE = "src/casemate"
ANSIBLE = f"{PACKAGE}/ansible"
PLACES = {
    "library": "plugins/modules",
    "module_utils": "plugins/module_utils",
    f"{ANSIBLE}/action": "plugins/action",
    f"{ANSIBLE}/lookup": "plugins/lookup",
    "roles": "roles",
    "playbooks": "playbooks",
}
"""Folder of the checkout -> folder of the collection."""
FILES = ("LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
REQUIREMENTS = ("cvss", "jsonschema", "packageurl-python", "pyyaml")
"""Of what casemate depends on, what its plugins need beside ansible-core."""
SYSTEM = ("openssh-client [platform:dpkg]", "openssh-clients [platform:rpm]")
BOOTSTRAP = re.compile(
    r"PROJECT = Path\(__file__\).*\nfor folder in .*:\n    if .*:\n        sys\.path\.insert\(.*\)\n\n"
)
"""How a plugin of a checkout, which Ansible loads by its file, finds the packages; a collection's are found by name."""
NEEDED_BY_BOOTSTRAP = {"sys": "import sys\n", "Path": "from pathlib import Path\n"}
"""What it uses -> the line that imports it, which goes with it where nothing else uses that."""
LONGEST = 160
"""Characters of a line in a collection."""


def is_any(tree: ast.AST) -> bool:
    """Every file."""
    return True


def prints(tree: ast.AST) -> bool:
    """A program that prints what it has found."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Name) and called.id == "print" for called in calls)


def leaves_out(tree: ast.AST) -> bool:
    """A file that calls `_` what it does not use."""
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    return any(node.id == "_" for node in names)


NOT_OURS: dict[str, tuple[str | tuple[str, ...], Callable[[ast.AST], bool]]] = {
    "action-plugin-docs": ("plugins/action/casemate_", is_any),  # they act on the controller alone, so have no module
    "pylint:ansible-bad-function": ("plugins/module_utils/", prints),  # what a host runs by itself has no module's log
    "pylint:disallowed-name": ("plugins/", leaves_out),  # Ansible keeps `_` for translations, and has none
    "validate-modules:missing-gplv3-license": (("plugins/modules/", "plugins/lookup/"), is_any),  # ours is Apache-2.0
}
"""Sanity test of Ansible -> what the files of Python begin with, and have in them, that it does not apply to."""


def tracked() -> list[str]:
    """What git knows, so that nothing else gets in."""
    said = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in said.split("\0") if name and (ROOT / name).is_file())


def imported(path: str) -> set[str]:
    """Files of the package casemate that a file imports; those of a package bring its `__init__`."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "casemate" and not node.level:
            whole = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            for parts in ("/".join(name.split(".")[:end]) for name in whole for end in range(1, name.count(".") + 2)):
                found |= {file for file in (f"src/{parts}.py", f"src/{parts}/__init__.py") if (ROOT / file).is_file()}
    return found


def controller_files(names: list[str]) -> set[str]:
    """What the plugins need of the package casemate: what they import, and the data in it."""
    files: set[str] = set()
    found = {name for name in names if name.startswith(f"{ANSIBLE}/")}
    while found:
        files |= found
        found = {more for file in found for more in imported(file)} - files
    data = {name for name in names if name.startswith(f"{PACKAGE}/") and name.endswith(".yml")}
    return {file for file in files if not file.startswith(f"{ANSIBLE}/")} | data


def place(name: str, controller: set[str]) -> str:
    """Where a file of the checkout stands in the collection; nowhere when it is no part of it."""
    if name in FILES or (name.startswith("docs/") and name.endswith(".md")):  # the README leads to them
        return name
    if name in controller:
        return f"plugins/plugin_utils/casemate{name.removeprefix(PACKAGE)}"
    for folder, there in PLACES.items():
        if name.startswith(f"{folder}/"):
            return there + name.removeprefix(folder)
    return ""


def full_names(text: str, modules: list[str], roles: list[str], lookups: list[str]) -> str:
    """A text of YAML, or the documentation of a module, with the names that a collection gives to what is its own."""
    ours = f"{NAMESPACE}.{NAME}."
    text = re.sub(rf"(?m)^(\s*(?:- )?)({'|'.join(modules)}):", rf"\1{ours}\2:", text)
    text = re.sub(rf"\bM\(({'|'.join(modules)})\)", rf"M({ours}\1)", text)
    text = re.sub(rf"((?:include|import)_role:\s+\{{?name: )({'|'.join(roles)})\b", rf"\1{ours}\2", text)
    return re.sub(rf"(\b(?:lookup|query|q)\(')({'|'.join(lookups)})'", rf"\1{ours}\2'", text)


def full_imports(text: str, modules: list[str]) -> str:
    """A program with the imports of a collection, and the full names of the modules that it runs."""
    text, found = BOOTSTRAP.subn("", text)
    for name, line in NEEDED_BY_BOOTSTRAP.items() if found else ():
        rest = text.replace(line, "")
        text = text if re.search(rf"\b{name}\b", rest) else rest
    text = re.sub(
        r"(?m)^(\s*)from (?:ansible\.)?module_utils\.casemate\b", rf"\1from {PLUGINS}.module_utils.casemate", text
    )
    text = re.sub(r"(?m)^(\s*)from casemate\b", rf"\1from {PLUGINS}.plugin_utils.casemate", text)
    text = re.sub(r"(?m)^( *)(from \S+ import) ([\w, ]+)$", short_import, text)
    return re.sub(rf'(module_name=")({"|".join(modules)})"', rf'\1{NAMESPACE}.{NAME}.\2"', text)


def short_import(line: re.Match[str]) -> str:
    """An import as it stands, or in several lines where a full name has made it too long for one."""
    if len(line[0]) <= LONGEST:
        return line[0]
    names = "".join(f"{line[1]}    {name},\n" for name in line[3].split(", "))
    return f"{line[1]}{line[2]} (\n{names}{line[1]})"


def contents() -> dict[str, bytes]:
    """Every file of the collection, by its name there."""
    names = tracked()
    controller = controller_files(names)
    known = {
        kind: [Path(name).stem for name in names if Path(name).parent == Path(folder)]
        for kind, folder in (("modules", "library"), ("actions", f"{ANSIBLE}/action"), ("lookups", f"{ANSIBLE}/lookup"))
    }
    modules = sorted({*known["modules"], *known["actions"]})
    roles = sorted({name.split("/")[1] for name in names if name.startswith("roles/")})
    made = {}
    for name in names:
        if there := place(name, controller):
            text = (ROOT / name).read_text(encoding="utf-8")
            if name.endswith(".py"):
                text = full_imports(text, modules)
            if name.endswith(".py") == (there.startswith("plugins/modules/")) and not there.endswith(".md"):
                text = full_names(text, modules, roles, known["lookups"])
            made[there] = text.encode()
    for there in [*made]:  # packages of Python have to say so, and a checkout's `module_utils` is none
        if there.startswith(("plugins/module_utils/", "plugins/plugin_utils/")):
            made.setdefault(f"{os.path.dirname(there)}/__init__.py", b"")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [line for line in project["dependencies"] if re.split(r"[^\w-]", line)[0] in REQUIREMENTS]
    cores = re.findall(r"ansible-core==([\d.]+)\.\*", " ".join(project["dependencies"]))
    made["meta/runtime.yml"] = f'---\nrequires_ansible: ">={min(cores)}.0"\n'.encode()
    made["requirements.txt"] = "".join(f"{line}\n" for line in needed).encode()
    made["bindep.txt"] = "".join(f"{line}\n" for line in SYSTEM).encode()
    made["meta/execution-environment.yml"] = (
        b"---\nversion: 1\ndependencies:\n  python: requirements.txt\n  system: bindep.txt\n"
    )
    trees = {name: ast.parse(made[name]) for name in sorted(made) if name.endswith(".py")}
    ignored = [
        f"{name} {test}\n"
        for test, (begins, has) in NOT_OURS.items()
        for name, tree in trees.items()
        if name.startswith(begins) and has(tree)
    ]
    made.update((f"tests/sanity/ignore-{core}.txt", "".join(ignored).encode()) for core in cores)
    return made


def entry(name: str, text: bytes | None) -> dict[str, Any]:
    """A file, or without a text a folder, as a collection's FILES.json tells it."""
    digest = hashlib.sha256(text).hexdigest() if text is not None else None
    kinds = ("dir", None) if text is None else ("file", "sha256")
    return {"name": name, "ftype": kinds[0], "chksum_type": kinds[1], "chksum_sha256": digest, "format": 1}


def archive(files: dict[str, bytes], about: dict[str, Any], moment: int) -> bytes:
    """The collection's archive, as `ansible-galaxy collection install` takes it."""
    folders = {"."} | {str(parent) for name in files for parent in Path(name).parents}
    entries = [entry(name, files.get(name)) for name in sorted({*folders, *files})]
    listing = json.dumps({"files": entries, "format": 1}, indent=1).encode()
    manifest = {"collection_info": about, "file_manifest_file": entry("FILES.json", listing), "format": 1}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as made:
        whole: dict[str, bytes | None] = {
            "MANIFEST.json": json.dumps(manifest, indent=1).encode(),
            "FILES.json": listing,
        }
        whole.update((name, files.get(name)) for name in sorted({*folders, *files} - {"."}))
        for name, text in whole.items():
            info = tarfile.TarInfo(name)
            info.mtime, info.mode = moment, 0o644
            if text is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            info.size = len(text or b"")
            made.addfile(info, io.BytesIO(text or b""))
    return gzip.compress(raw.getvalue(), mtime=moment)


def environment(collection: str, project: dict[str, Any]) -> str:
    """The definition of an execution environment for ansible-builder, with the collection's archive beside it."""
    core = re.findall(r"ansible-core==[\d.]+\*", " ".join(project["dependencies"]))[-1]
    return f"""\
# An image for AWX and ansible-navigator: ansible-builder build -t casemate-k3s, in the folder with {collection}.
---
version: 3
images:
  base_image:
    name: docker.io/library/python:3.13-slim-trixie
dependencies:
  python_interpreter:
    python_path: /usr/local/bin/python3
  ansible_core:
    package_pip: {core}
  ansible_runner:
    package_pip: ansible-runner
  galaxy:
    collections:
      - name: configs/{collection}
        type: file
additional_build_files:
  - src: {collection}
    dest: configs
additional_build_steps:
  append_base:
    - RUN apt-get update # the image has no list of packages, and the stages after this one install some
options:
  package_manager_path: /usr/bin/apt-get
"""


def main(folder: Path) -> None:
    """Write both into the folder."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    about = {
        "namespace": NAMESPACE,
        "name": NAME,
        "version": project["version"],
        "authors": ["Casemate maintainers"],
        "readme": "README.md",
        "tags": ["infrastructure", "security", "kubernetes", "k3s", "hardening"],
        "description": project["description"],
        "license": [],
        "license_file": "LICENSE",
        "dependencies": {},
        "repository": None,
        "documentation": None,
        "homepage": None,
        "issues": None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{NAMESPACE}-{NAME}-{project['version']}.tar.gz"
    (folder / name).write_bytes(archive(contents(), about, int(os.environ["SOURCE_DATE_EPOCH"])))
    (folder / "execution-environment.yml").write_text(environment(name, project))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
