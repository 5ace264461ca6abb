"""Loading, explaining and documenting the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from casemate import catalogue
from casemate.catalogue import cis, declarations, pages


def control(cid: str = "SSH-ROOT-REFUSED", **rest: Any) -> dict[str, Any]:
    return {
        "id": cid,
        "title": "Root cannot log in",
        "why": "A stolen root key\nmust not be enough.",
        "severity": "high",
        "level": "baseline",
        "applies_to": ["node"],
        "mitigations": ["T1.4"],
        "setting": {"kind": "sshd", "key": "permitrootlogin", "value": "no"},
        **rest,
    }


def project(folder: Path, **roles: list[dict[str, Any]]) -> Path:
    for role, controls in roles.items():
        path = folder / "roles" / role / "controls" / "topic.yml"
        path.parent.mkdir(parents=True)
        path.write_text(yaml.safe_dump({"controls": controls}))
    return folder


def test_controls_are_loaded_with_their_role(tmp_path: Path) -> None:
    known = catalogue.load(project(tmp_path, k3s_access=[control()], k3s_host=[]))
    assert known["SSH-ROOT-REFUSED"]["role"] == "k3s_access"


def test_what_a_file_says_for_all_its_controls_holds_where_one_does_not_say_it(tmp_path: Path) -> None:
    folder = tmp_path / "roles/k3s_access/controls"
    folder.mkdir(parents=True)
    given = {"severity": "low", "level": "strict", "mitigations": ["T1.1"]}
    spare = {name: value for name, value in control("SSH-A-SET").items() if name not in given}
    for name, made in (("a", [spare]), ("b", [control("SSH-B-SET")])):
        (folder / f"{name}.yml").write_text(yaml.safe_dump({"defaults": given, "controls": made}))
    first, second = catalogue.load(tmp_path).values()
    assert {name: first[name] for name in given} == given
    assert (second["severity"], second["level"], second["mitigations"]) == ("high", "baseline", ["T1.4"])


def test_a_reference_is_told_with_the_version_of_its_benchmark() -> None:
    assert catalogue.references({"cis_debian12": ["5.2.2", "5.2.3"], "k3s_docs": ["cli/server"]}) == [
        "CIS Debian Linux 12 Benchmark 1.1.0: 5.2.2, 5.2.3",
        "K3s documentation 1.36: cli/server",
    ]


def test_an_id_in_two_roles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"SSH-ROOT-REFUSED.*k3s_access.*k3s_host"):
        catalogue.load(project(tmp_path, k3s_access=[control()], k3s_host=[control()]))


def test_every_threat_and_mitigation_has_a_title() -> None:
    assert [threat["id"] for threat in catalogue.threats()] == [f"T{n}" for n in range(1, 8)]
    counts = {"T1": 6, "T2": 5, "T3": 5, "T4": 5, "T5": 4, "T6": 4, "T7": 4}
    assert {t["id"]: len(t["mitigations"]) for t in catalogue.threats()} == counts
    assert all(title for title in catalogue.mitigations().values())


@pytest.mark.parametrize(
    ("wanted", "near"), [("ssh-root-refuse", "SSH-ROOT-REFUSED"), ("ROOT-REFUSED", "SSH-ROOT-REFUSED"), ("zzz", "")]
)
def test_a_near_miss_is_suggested(wanted: str, near: str) -> None:
    assert catalogue.nearest(wanted, ["SSH-ROOT-REFUSED", "KERNEL-PANIC-SET"]) == near


def test_an_explanation_says_everything() -> None:
    text = pages.text({**control(impact="Scripts that log in as root", refs={"cis": ["5.1"]}), "role": "k3s_access"})
    for part in (
        "Root cannot",
        "must not be enough",
        "high",
        "T1.4",
        "permitrootlogin",
        "Scripts",
        "cis 5.1",
        "k3s_access",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("groups", "first", "level", "expected"),
    [
        (["k3s_server"], True, "baseline", {"N", "S", "C"}),
        (["k3s_server"], False, "baseline", {"N", "S"}),
        (["k3s_agent"], False, "baseline", {"N", "A"}),
        (["k3s_agent"], False, "strict", {"N", "A", "X"}),
    ],
)
def test_only_what_applies_is_resolved(groups: list[str], first: bool, level: str, expected: set[str]) -> None:
    controls = [
        control("N"),
        control("S", applies_to=["server"]),
        control("A", applies_to=["agent"]),
        control("C", applies_to=["cluster"]),
        control("X", level="strict"),
    ]
    scope = declarations.scopes(groups, first)
    assert {c["id"] for c in controls if declarations.applies(c, scope, level)} == expected


def test_only_templates_are_touched() -> None:
    seen = declarations.each({"a": ["{{ x }}", "plain", 1], "b": {"c": "{% if y %}"}}, lambda text: f"<{text}>")
    assert seen == {"a": ["<{{ x }}>", "plain", 1], "b": {"c": "<{% if y %}>"}}


def test_internals_of_roles_cannot_be_beaten_by_an_inventory_or_by_each_other() -> None:
    """The law puts an inventory above them, Ansible below: with names of their own it makes no difference."""
    _, internals = declarations.variables()
    assert internals
    assert all(name.startswith(tuple(f"__{role}_" for role in declarations.ROLES)) for name in internals)


def test_every_role_is_part_of_the_law() -> None:
    assert set(declarations.controls()) == set(declarations.ROLES)


def test_the_page_escapes_tables_and_names_open_mitigations() -> None:
    page = pages.markdown({"SSH-ROOT-REFUSED": {**control(title="a | b"), "role": "k3s_access"}})
    assert "a \\| b" in page
    assert "| T1.4 SSH by key only, for few users from few addresses | `SSH-ROOT-REFUSED` |" in page
    assert "| T6.1 Images come from trusted registries only | open: " in page


def test_stale_docs_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(pages, "DOCS", tmp_path / "docs" / "controls.md")
    assert pages.write_docs(only_check=True) == 1
    assert "stale" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()
    assert pages.write_docs() == 0
    assert pages.write_docs(only_check=True) == 0


@pytest.mark.parametrize(
    ("answers", "why", "counts_as"),
    [(["1.1.1.6"], {}, "answered"), (["1.1.1.6"], {"why_not": "overlay"}, "part"), ([], {"why_not": "overlay"}, "k3s")],
)
def test_a_recommendation_counts_as_who_answers_it(answers: list[str], why: dict[str, str], counts_as: str) -> None:
    assert cis.share({"id": "1.1.1.6", **why}, answers) == counts_as


def test_the_page_says_who_answers_and_what_is_left() -> None:
    known = catalogue.load()
    page = cis.cis_page(known, ())
    assert "| Processes of others are hidden (hidepid) | konstruktoid" in page
    assert "| 1.1.1.6 | 1.1.1.6 | overlayfs cannot be loaded | 2 | automated | none | containerd keeps" in page
    answered = {**known, "X-Y": control(refs={"cis_debian12": ["1.1.1.6"]})}
    assert "| automated | **`X-Y`** | containerd keeps" in cis.cis_page(answered, ["X-Y"])
