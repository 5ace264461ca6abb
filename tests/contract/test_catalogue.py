"""What the catalogue promises: one declaration for each control, nothing shared, every threat answered or open."""

from __future__ import annotations

from typing import Any

import pytest

from casemate import ROOT, catalogue
from casemate.catalogue import cis, pages
from casemate.cli.app import INPUTS
from casemate.preflight import inputs, inputs_page
from module_utils.casemate.core.schema import Field
from module_utils.casemate.engine import control as engine
from module_utils.casemate.kinds import KINDS

CONTROLS = catalogue.load()
MITIGATIONS = {
    f"T{threat}.{n}"
    for threat, count in zip(range(1, 8), (6, 5, 5, 5, 4, 4, 4), strict=True)
    for n in range(1, count + 1)
}
SCANS = "tests/lab/test_scans_lab.py::test_what_did_not_pass_is_not_let_in_and_what_runs_nevertheless_is_named"
TOLD_BY_STORIES = {
    "T5.4": SCANS,
    "T6.2": SCANS,
    "T6.4": SCANS,
    "T7.3": "tests/lab/test_supply_lab.py::test_another_k3s_with_an_advisory_is_refused_before_any_host_is_touched",
}
"""Mitigation -> the story that proves it. What is wrong there comes from the operator's own data, such as a scan or an
advisory, so an attack would have to plant it on the machine of the operator."""


def templated(value: Any) -> bool:
    return "{{" in str(value) or "{%" in str(value)


def static(control: dict[str, Any]) -> dict[str, Any]:
    """A control as the engine takes it, with a plausible value for each template."""
    kind = KINDS.get(control["setting"]["kind"])
    assert kind is not None, f"{control['id']}: unknown kind {control['setting']['kind']}"
    fields = kind.schema
    setting = {k: example(fields.get(k), v) if templated(v) else v for k, v in control["setting"].items()}
    made = {**control, "setting": setting}
    if "bound" in made:
        made["bound"] = {k: v for k, v in made["bound"].items() if not templated(v)} | {"of": 1}
    return made


def example(field: Field | None, value: Any) -> Any:
    wanted = field.type if field else "any"
    made = {"int": 1, "bool": True, "list": [str(value)], "dict": {"x": str(value)}, "str": str(value)}
    if field and field.choices:
        return field.choices[0]
    return value if isinstance(value, list | dict) or wanted not in made or (field and field.pattern) else made[wanted]


def test_there_are_enough_controls() -> None:
    assert len(CONTROLS) >= 80


@pytest.mark.parametrize("cid", CONTROLS)
def test_every_control_is_well_formed(cid: str) -> None:
    made = static(CONTROLS[cid])
    wrong = [w for w in engine.wrong(made) if "{{" not in w]
    assert wrong == []


@pytest.mark.parametrize("cid", CONTROLS)
def test_every_control_serves_known_mitigations(cid: str) -> None:
    served = CONTROLS[cid]["mitigations"]
    assert served
    assert set(served) <= MITIGATIONS


def test_every_reference_names_a_benchmark_with_its_version() -> None:
    assert all(set(one) == {"title", "version"} for one in catalogue.benchmarks().values())
    named = {key for control in CONTROLS.values() for key in control.get("refs") or {}}
    assert named == set(catalogue.benchmarks())


def test_threats_and_mitigations_are_those_of_the_model() -> None:
    assert set(catalogue.mitigations()) == MITIGATIONS


def machines(control: dict[str, Any]) -> set[str]:
    """The kinds of machine that a control is for."""
    wide = {"node": {"server", "agent"}, "cluster": {"server"}}
    return {machine for scope in control["applies_to"] for machine in wide.get(scope, {scope})}


def test_no_two_controls_share_a_setting_of_one_machine() -> None:
    holders: dict[tuple[str, str], str] = {}
    for cid, control in CONTROLS.items():
        kind = control["setting"]["kind"]
        identity = f"{kind}:{KINDS[kind].identity(control['setting'])}"
        for machine in machines(control):
            holder = holders.setdefault((identity, machine), cid)
            assert holder == cid, f"{cid} shares {identity} with {holder}"


def test_every_attack_names_a_control() -> None:
    assert catalogue.attacks(), "there are no attacks"
    unknown = {cid: places for cid, places in catalogue.attacks().items() if cid not in CONTROLS}
    assert unknown == {}


@pytest.mark.parametrize("mitigation", sorted(MITIGATIONS))
def test_every_mitigation_has_a_control_and_a_proof_or_is_listed_as_open(mitigation: str) -> None:
    serving = {cid for cid, control in CONTROLS.items() if mitigation in control["mitigations"]}
    proven = bool(serving & set(catalogue.attacks())) or mitigation in TOLD_BY_STORIES
    assert (serving and proven) or mitigation in catalogue.open_mitigations(), (
        f"{mitigation}: controls {sorted(serving)}, none attacked; attack one, or list it in docs/open-mitigations.yml"
    )


def test_no_attack_stands_where_a_story_does() -> None:
    attacked = {one for cid in catalogue.attacks() for one in CONTROLS[cid]["mitigations"]}
    assert not attacked & set(TOLD_BY_STORIES), "an attack proves it on every host: take the story off the list"


@pytest.mark.parametrize("mitigation", TOLD_BY_STORIES)
def test_stories_that_prove_mitigations_are_told(mitigation: str) -> None:
    path, _, name = TOLD_BY_STORIES[mitigation].partition("::")
    assert f"\ndef {name}(" in (ROOT / path).read_text()


def test_what_is_open_says_why() -> None:
    assert set(catalogue.open_mitigations()) <= MITIGATIONS
    assert all(len(why) > 20 for why in catalogue.open_mitigations().values())


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_declares_a_schema(name: str) -> None:
    kind = KINDS[name]
    assert kind.schema
    assert all(isinstance(field, Field) for field in kind.schema.values())
    assert kind.enforced_by in ("engine", "task", None)
    assert callable(kind.identity)


@pytest.mark.parametrize("cid", CONTROLS)
def test_nothing_is_evicted_that_no_operator_names(cid: str) -> None:
    setting = CONTROLS[cid]["setting"]
    assert not (KINDS[setting["kind"]].evicts and "enforced" in setting)


@pytest.mark.parametrize("cid", CONTROLS)
def test_every_finding_can_say_where(cid: str) -> None:
    made = static(CONTROLS[cid])["setting"]
    places = KINDS[made["kind"]].places({name: value for name, value in made.items() if name != "kind"})
    assert places and all(isinstance(place, str) and place for place in places), places


def test_the_generated_pages_are_fresh() -> None:
    of_inputs = {INPUTS: inputs_page.markdown(inputs.known_inputs())}
    for path, page in {**pages.pages(), **of_inputs}.items():
        assert path.read_text() == page, "run `casemate docs`"


@pytest.mark.parametrize("technique", catalogue.techniques(), ids=lambda one: str(one["id"]))
def test_every_technique_is_answered_or_says_why_not(technique: dict[str, Any]) -> None:
    answers, why = technique.get("controls") or [], technique.get("why") or ""
    assert set(answers) <= set(CONTROLS)
    assert answers or len(why) > 20
    assert set(technique["tactics"]) <= {"persistence", "privilege escalation", "credential access"}


def test_no_technique_stands_twice() -> None:
    ids = [one["id"] for one in catalogue.techniques()]
    assert len(ids) == len(set(ids))


CIS = catalogue.cis_debian()
RECOMMENDED = {"cis_debian12": CIS["recommendations"], "cis_debian13": CIS["debian13_only"]}


@pytest.mark.parametrize(
    ("benchmark", "one"),
    [pytest.param(benchmark, one, id=one["id"]) for benchmark, of in RECOMMENDED.items() for one in of],
)
def test_every_recommendation_of_cis_is_answered_or_says_why_not(benchmark: str, one: dict[str, Any]) -> None:
    why = CIS["reasons"][one["why_not"]]["why"] if "why_not" in one else ""
    assert one["id"] in catalogue.answering(CONTROLS, benchmark) or len(why) > 10
    assert one["level"] in (1, 2)
    assert one["title"]


@pytest.mark.parametrize("benchmark", RECOMMENDED)
def test_controls_refer_to_recommendations_that_there_are(benchmark: str) -> None:
    there = {one["id"] for one in RECOMMENDED[benchmark]}
    assert set(catalogue.answering(CONTROLS, benchmark)) <= there


def test_no_recommendation_of_cis_stands_twice() -> None:
    numbers = [one["id"] for one in CIS["recommendations"]]
    numbers_13 = [n for one in CIS["recommendations"] for n in one.get("debian13") or ()]
    numbers_13 += [one["id"] for one in CIS["debian13_only"]]
    assert (len(set(numbers)), len(set(numbers_13))) == (len(numbers), len(numbers_13)) == (310, 343)


@pytest.mark.parametrize("one", CIS["left_out"], ids=lambda one: one["title"])
def test_what_is_left_out_says_who_asks_for_it_and_why_not(one: dict[str, Any]) -> None:
    assert one["asked_by"] and len(one["why"]) > 10


def test_every_reason_of_cis_is_somebodys_and_is_used() -> None:
    used = {one["why_not"] for of in RECOMMENDED.values() for one in of if "why_not" in one}
    assert used == set(CIS["reasons"])
    assert {one["whose"] for one in CIS["reasons"].values()} <= set(cis.SHARES)
