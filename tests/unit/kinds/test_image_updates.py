"""Images that run although their tag leads elsewhere by now, or what they are built on does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from unit import running_images as made
from unit.fake_host import FakeHost

from module_utils.casemate.core.verdict import Unavailable, Verdict
from module_utils.casemate.k3s.images import KUBELETS, images_of
from module_utils.casemate.kinds import image_updates as kind

APP, BASE = "registry.example.org/app", "docker.io/library/debian:12"
OLD, NEW = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
ANNOTATED = {kind.BASE_NAME: "debian:12", kind.BASE_DIGEST: OLD}
POD = "shop/web/main"


def node(tmp_path: Path, annotations: dict[str, str] | None = None, asked: str = f"{APP}:1") -> tuple[FakeHost, str]:
    """A node that runs one image, for which a pod asks so, and the digest of its configuration."""
    blobs: made.Blobs = {}
    manifest, config = made.image(blobs, "2026-07-28T00:00:00Z", annotations)
    pods = [made.container(config, "shop/web", asked=asked)]
    host = made.node(tmp_path, blobs, [(f"{APP}@{manifest}", manifest), (config, manifest)], pods)
    host.commands["systemctl show k3s.service"] = (0, "ActiveState=active\nMainPID=7\n", "")
    host.commands["systemctl show k3s-agent.service"] = (0, "ActiveState=inactive\n", "")
    return host, config


def answer(*digests: str, config: str = "", why: str = "") -> dict[str, Any]:
    return {"linux/amd64": {"digests": list(digests), "config": config, "why": why}}


def judged(host: FakeHost, of: str, **answers: Any) -> Verdict:
    setting: kind.Setting = {"of": of, "answers": answers, "wanted": True}  # type: ignore[typeddict-item]
    (seen,) = kind.observe([setting], host)
    return kind.assess(setting, seen)


def test_a_tag_that_leads_to_the_same_configuration_has_not_moved(tmp_path: Path) -> None:
    host, config = node(tmp_path)
    assert judged(host, "tags", **{f"{APP}:1": answer(NEW, config=config)}).ok


def test_a_tag_that_has_moved_is_named_with_image_and_pod(tmp_path: Path) -> None:
    host, _ = node(tmp_path)
    verdict = judged(host, "tags", **{f"{APP}:1": answer(NEW, config=OLD)})
    assert not verdict.ok
    assert f"in {POD}: its tag {APP}:1 is {NEW} now" in verdict.reason
    assert verdict.reason.startswith(f"{APP}@sha256:")
    assert verdict.where == (f"pod {POD}",)
    (told,) = verdict.observed.values()
    assert (told["reference"], told["state"], told["now"], told["pods"]) == (f"{APP}:1", "newer", NEW, [POD])


def test_an_image_that_is_named_by_digest_alone_has_no_tag_to_move(tmp_path: Path) -> None:
    host, _ = node(tmp_path, asked=f"{APP}@{OLD}")
    assert judged(host, "tags").ok


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "it was not asked for lately"),
        ({f"{APP}:1": answer(why="it is not reached")}, "it is not reached"),
        ({f"{APP}:1": {"linux/arm64": answer(NEW)["linux/amd64"]}}, "it was not asked for lately"),
    ],
)
def test_a_tag_of_which_nothing_is_known_is_not_evaluated_and_told(
    tmp_path: Path, answers: dict[str, Any], said: str
) -> None:
    host, _ = node(tmp_path)
    with pytest.raises(Unavailable, match=rf"^registry: {APP}:1: {said}") as refused:
        judged(host, "tags", **answers)
    (told,) = refused.value.observed.values()
    assert (told["reference"], told["platform"], told["state"]) == (f"{APP}:1", "linux/amd64", "unknown")


@pytest.mark.parametrize(("digests", "ok"), [((OLD,), True), ((NEW, OLD), True), ((NEW,), False)])
def test_a_base_is_current_by_its_index_or_its_manifest(tmp_path: Path, digests: tuple[str, ...], ok: bool) -> None:
    host, _ = node(tmp_path, ANNOTATED)
    verdict = judged(host, "bases", **{BASE: answer(*digests, config=OLD)})
    assert verdict.ok == ok
    assert ok or f"its base {BASE} is {NEW} now" in verdict.reason


def test_an_image_that_does_not_say_what_it_is_built_on_is_not_evaluated(tmp_path: Path) -> None:
    for at, said in enumerate(({}, {kind.BASE_NAME: "debian:12"}, {kind.BASE_DIGEST: OLD})):
        host, _ = node(tmp_path / str(at), said)
        with pytest.raises(Unavailable, match=f"^undeclared: .*{APP}@"):
            judged(host, "bases", **{BASE: answer(OLD)})
    host, _ = node(tmp_path / "none", {kind.BASE_NAME: "scratch"})
    assert judged(host, "bases").ok


def test_what_has_moved_is_told_whatever_else_is_not_known(tmp_path: Path) -> None:
    host, _ = node(tmp_path, asked=f"{APP}:2")
    listed = host.commands[" ".join(images_of(KUBELETS))][1]
    tagged = re.sub(rf"^{APP}@\S+", f"{APP}:1", listed.splitlines()[1])
    host.commands[" ".join(images_of(KUBELETS))] = (0, f"{listed}{tagged}\n", "")
    verdict = judged(host, "tags", **{f"{APP}:1": answer(NEW, config=OLD)})
    assert [one["reference"] for one in verdict.observed.values()] == [f"{APP}:1", f"{APP}:2"]
    assert not verdict.ok


def test_where_nobody_is_to_be_asked_or_k3s_does_not_run_nothing_is_said(tmp_path: Path) -> None:
    host, _ = node(tmp_path)
    with pytest.raises(Unavailable, match=r"^unasked: casemate_image_updates is not set"):
        kind.observe([{"of": "tags", "answers": {}, "wanted": False}], host)
    host.commands["systemctl show k3s.service"] = (0, "ActiveState=inactive\n", "")
    with pytest.raises(Unavailable, match=r"^k3s: "):
        judged(host, "tags")
