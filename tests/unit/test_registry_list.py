"""What is refused of casemate_registries, and what is made of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from casemate.preflight import inputs
from casemate.supply import registries
from module_utils.casemate.k3s import registries as of_k3s


@pytest.fixture
def authority(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=x",
    ]
    subprocess.run([*argv, "-keyout", tmp_path / "key", "-out", path], check=True, capture_output=True)
    return str(path)


@pytest.fixture
def login(tmp_path: Path) -> str:
    path = tmp_path / "login"
    path.write_text("ci:canary\n")
    path.chmod(0o600)
    return str(path)


def problems(*entries: Any, **values: Any) -> str:
    return "\n".join(registries.problems({registries.VARIABLE: list(entries), **values}))


def test_a_list_becomes_what_k3s_reads(authority: str, login: str) -> None:
    entries: list[dict[str, Any]] = [
        {"host": "docker.io", "path": "rancher"},
        {"host": "docker.io", "path": "library"},
        {"host": "r.example.org:5000", "ca_file": authority, "credentials_file": login},
        {"host": "ghcr.io", "path": "org", "mirrors": ["https://m.example.org/v2/ghcr", "https://ghcr.io"]},
    ]
    assert problems(*entries) == ""
    made = registries.resolved(entries)
    assert made["prefixes"] == ["docker.io/library/", "docker.io/rancher/", "ghcr.io/org/", "r.example.org:5000/"]
    assert made["document"]["mirrors"] == {
        "docker.io": {"endpoint": ["https://registry-1.docker.io"]},
        "r.example.org:5000": {"endpoint": ["https://r.example.org:5000"]},
        "ghcr.io": {"endpoint": ["https://m.example.org/v2/ghcr", "https://ghcr.io"]},
        "*": {"endpoint": [of_k3s.NOWHERE]},
    }
    assert made["document"]["configs"] == {
        "r.example.org:5000": {"tls": {"ca_file": "/etc/casemate/registries/r.example.org_5000.pem"}}
    }
    assert list(made["authorities"]) == ["r.example.org_5000.pem"]
    assert "canary" not in json.dumps(made)
    whole = registries.document(entries, with_logins=True)
    assert whole["configs"]["r.example.org:5000"]["auth"] == {"username": "ci", "password": "canary"}
    assert of_k3s.logins(whole) == made["logins"] and of_k3s.without_logins(whole) == made["document"]
    assert of_k3s.parse(of_k3s.text(whole)) == whole and of_k3s.is_ours(of_k3s.text(whole))


def test_the_registry_of_k3s_own_images_comes_from_its_configuration() -> None:
    assert registries.resolved(None, {"token": "canary"})["own"] == ""
    made = registries.resolved(None, {"system-default-registry": "r.example.org", "token": "canary"})
    assert made["own"] == "r.example.org/" and "canary" not in json.dumps(made)


def test_without_a_list_nothing_is_demanded() -> None:
    made = registries.resolved(None)
    assert made["unset"].startswith("casemate_registries ") and made["prefixes"] == [] and made["authorities"] == {}
    assert registries.problems({}) == [] == registries.own_images_problems({})


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([{"host": "index.docker.io"}], "host is index.docker.io, by which no image is named. Write docker.io"),
        ([{"host": "ghcr.io"}, {"host": "ghcr.io"}], "has ghcr.io/ twice"),
        ([{"host": "a.io:0"}], "casemate_registries[0].host has a.io:0, which is no host: its port is 0"),
        ([{"host": "a.io:65536"}], "[0].host has a.io:65536, which is no host: Port out of range"),
        ([{"host": "a..io"}], "[0].host has a..io, which is no host"),
        ([{"host": "[1.2:::]"}], "[0].host has [1.2:::], which is no host"),
        ([{"host": "a.io", "mirrors": ["https://m.io:99999/v2"]}], "[0].mirrors has m.io:99999/v2, which is no host"),
        (
            [{"host": "ghcr.io", "path": "a"}, {"host": "ghcr.io", "path": "b", "mirrors": ["https://m.example.org"]}],
            "different mirrors for ghcr.io",
        ),
        (
            [
                {"host": "a.io", "mirrors": ["https://m.io"], "ca_file": "/a"},
                {"host": "b.io", "mirrors": ["https://m.io/x"]},
            ],
            "different ca_file or credentials_file for m.io",
        ),
        ([{"host": "a.io", "ca_file": __file__}], "has no certificate in PEM"),
        ([{"host": "a.io", "credentials_file": "/nowhere"}], "/nowhere cannot be read: No such file"),
    ],
)
def test_what_contradicts_itself_is_refused(entries: list[Any], says: str) -> None:
    assert says in problems(*entries)


@pytest.mark.parametrize("text", ["canary\n", ":canary\n", "ci:\n", "ci:canary\nci:other\n", "\x00:\x01"])
def test_a_login_that_is_none_is_refused_and_not_shown(login: str, text: str) -> None:
    Path(login).write_text(text)
    said = problems({"host": "a.io", "credentials_file": login})
    assert "is not one line USER:PASSWORD" in said and "canary" not in said


def test_a_login_that_others_may_read_is_refused(login: str) -> None:
    Path(login).chmod(0o644)
    assert "others may read" in problems({"host": "a.io", "credentials_file": login})


@pytest.mark.parametrize("key", registries.DECIDED)
def test_what_would_get_round_the_list_is_refused(key: str) -> None:
    assert f"k3s_node_config.{key} does not go with" in problems({"host": "a.io"}, k3s_node_config={key: True})


def test_settings_of_registries_for_containerd_are_refused() -> None:
    text = "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/x'\n"
    said = problems({"host": "a.io"}, k3s_node_containerd_dropins={"mine": text})
    assert "k3s_node_containerd_dropins.mine has settings of registries" in said
    other = "[plugins.'io.containerd.cri.v1.images']\nx = 1\n"
    assert problems({"host": "a.io"}, k3s_node_containerd_dropins={"mine": other}) == ""


def test_k3s_own_images_have_to_come_from_somewhere() -> None:
    def said(*entries: Any, **config: Any) -> str:
        return "".join(registries.own_images_problems({registries.VARIABLE: entries, "k3s_node_config": config}))

    assert "does not list docker.io/rancher" in said({"host": "ghcr.io"})
    assert said({"host": "docker.io"}) == said({"host": "docker.io", "path": "rancher"}) == ""
    assert "docker.io/rancher" in said({"host": "docker.io", "path": "library"})
    assert said({"host": "r.io"}, **{"system-default-registry": "r.io"}) == ""
    assert "system-default-registry is r.io" in problems(
        {"host": "docker.io"}, k3s_node_config={"system-default-registry": "r.io"}
    )


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"host": "Docker.io"},
        {"host": "https://docker.io"},
        {"host": "docker.io/library"},
        {"host": "registry"},
        {"host": "*"},
        {"host": "ghcr.io", "path": "/org"},
        {"host": "ghcr.io", "path": "org/"},
        {"host": "ghcr.io", "path": "Org"},
        {"host": "ghcr.io", "path": "../org"},
        {"host": "ghcr.io", "mirrors": ["http://mirror.example.org"]},
        {"host": "ghcr.io", "mirrors": ["https://me:canary@mirror.example.org"]},
        {"host": "ghcr.io", "mirrors": []},
        {"host": "ghcr.io", "ca_file": "/nowhere"},
        {"host": "ghcr.io", "credentials": "me:canary"},
    ],
)
def test_an_entry_that_is_none_is_refused_by_its_place_and_shows_no_login(entry: Any) -> None:
    found = inputs.value_problems(registries.VARIABLE, [entry], inputs.known_inputs()[registries.VARIABLE])
    assert len(found) == 1 and found[0].startswith(f"{registries.VARIABLE}[0].")
    assert "canary" not in found[0]
