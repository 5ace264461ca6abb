"""What runs on a node, by the digests that others know it by."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from unit import running_images as made

from module_utils.casemate.core.verdict import Unavailable
from module_utils.casemate.k3s import images

BUILT = "2026-07-28T00:00:00Z"
APP, PAUSE = "docker.io/library/app", "docker.io/rancher/mirrored-pause:3.10.2"


def test_a_container_is_joined_with_the_digest_that_a_pull_resolves(tmp_path: Path) -> None:
    blobs: made.Blobs = {}
    manifest, config = made.image(blobs, BUILT, {"org.opencontainers.image.base.name": "docker.io/library/debian:12"})
    index = made.blob(blobs, manifests=[{"digest": manifest}, {"digest": f"sha256:{'0' * 64}"}])
    pause, pause_config = made.image(blobs, "2025-01-01T00:00:00Z")
    named = [(f"{APP}:1", index), (f"{APP}@{index}", index), (config, index), (PAUSE, pause), (pause_config, pause)]
    pods = [made.container(config, "shop/web-1", asked="app:1"), made.container(config, "shop/web-2", "init")]
    found = images.running(made.node(tmp_path, blobs, named, pods, {"web-1": PAUSE, "gone": PAUSE}))
    app = next(one for one in found if one.id == config)
    assert app == images.Image(
        config, [index], [f"{APP}:1", f"{APP}@{index}"], BUILT, "linux/amd64",
        {"org.opencontainers.image.base.name": "docker.io/library/debian:12"}, ["shop/web-1/main", "shop/web-2/init"],
        ["app:1"],
    )  # fmt: skip
    assert app.digest == index
    assert [one.pods for one in found if one.id == pause_config] == [["shop/web-1/(sandbox)"]]


def test_a_digest_by_which_it_was_pulled_stands_before_one_that_was_made_here(tmp_path: Path) -> None:
    blobs: made.Blobs = {}
    manifest, config = made.image(blobs, BUILT)
    wrapped = [made.blob(blobs, manifests=[{"digest": manifest}], note=text) for text in "abcdef"]
    pulled = max(wrapped)
    named = [(f"{APP}:by-hand", min(wrapped)), (f"{APP}@{pulled}", pulled), (config, pulled)]
    (found,) = images.running(made.node(tmp_path, blobs, named, [made.container(config, "shop/web")]))
    assert (found.digest, found.digests) == (pulled, [pulled, min(wrapped)])


def test_an_image_is_named_by_the_repository_that_has_its_digest(tmp_path: Path) -> None:
    blobs: made.Blobs = {}
    manifest, config = made.image(blobs, BUILT)
    mirror = f"registry.example.org/app@{manifest}"
    named = [(f"{APP}:by-hand", manifest), (mirror, manifest), (config, manifest)]
    (found,) = images.running(made.node(tmp_path, blobs, named, [made.container(config, "shop/web")]))
    assert (found.repository, found.name) == ("registry.example.org/app", mirror)


def test_labels_of_the_configuration_count_as_annotations_and_arm64_is_one_platform(tmp_path: Path) -> None:
    blobs: made.Blobs = {}
    about = {"architecture": "arm64", "variant": "v8", "config": {"Labels": {"a": "label", "b": "label"}}}
    manifest, config = made.image(blobs, BUILT, {"b": "annotation"}, **about)
    named = [(f"{APP}:1", manifest), (config, manifest)]
    (found,) = images.running(made.node(tmp_path, blobs, named, [made.container(config, "shop/web")]))
    assert (found.annotations, found.platform) == ({"a": "label", "b": "annotation"}, "linux/arm64")


def test_of_an_image_with_many_platforms_a_sandbox_runs_the_one_that_the_runtime_knows(tmp_path: Path) -> None:
    blobs: made.Blobs = {}
    (first, one), (second, other) = made.image(blobs, BUILT), made.image(blobs, "2026-01-01T00:00:00Z")
    index = made.blob(blobs, manifests=[{"digest": first}, {"digest": second}])
    named = [(PAUSE, index), (one, index)]
    pods = [made.container(one, "shop/web")]
    found = images.running(made.node(tmp_path, blobs, named, pods, {"web": PAUSE}))
    assert [(image.id, image.pods) for image in found] == [(one, ["shop/web/(sandbox)", "shop/web/main"])]
    assert other not in [image.id for image in found]


def test_a_volume_that_is_an_image_counts_as_what_runs(tmp_path: Path) -> None:
    blobs: made.Blobs = {}
    (app, app_config), (data, data_config) = made.image(blobs, BUILT), made.image(blobs, "2026-01-01T00:00:00Z")
    index = made.blob(blobs, manifests=[{"digest": data}])
    name = f"registry.example.org/data@{index}"
    named = [(f"{APP}:1", app), (app_config, app), (name, index), (data_config, index)]
    pod = {**made.container(app_config, "shop/web"), "podSandboxId": "a" * 64}
    gone = f"sha256:{'d' * 64}"
    volumes = [("a" * 64, index), ("a" * 64, app), ("b" * 64, index), ("b" * 64, gone)]
    found = {one.id: one for one in images.running(made.node(tmp_path, blobs, named, [pod], volumes=volumes))}
    assert found.keys() == {app_config, data_config, gone}
    assert (found[data_config].name, found[data_config].created) == (name, "2026-01-01T00:00:00Z")
    assert found[data_config].pods == [f"(sandbox {'b' * 12})/(volume)", "shop/web/(volume)"]
    assert found[app_config].pods == ["shop/web/(volume)", "shop/web/main"]
    assert found[gone].name == gone


def test_what_was_removed_from_the_store_runs_on_by_its_own_digest(tmp_path: Path) -> None:
    gone = f"sha256:{'a' * 64}"
    (found,) = images.running(made.node(tmp_path, {}, [], [made.container(gone, "shop/web")]))
    assert (found.digest, found.digests, found.created, found.platform) == (gone, [], "", "")


def test_a_blob_that_is_not_what_its_name_says_counts_for_nothing(tmp_path: Path) -> None:
    blobs: made.Blobs = {}
    manifest, config = made.image(blobs, BUILT)
    path = f"{images.STORE}/{config.partition(':')[2]}"
    blobs[path] = blobs[path].replace("2026", "2030")
    (found,) = images.running(
        made.node(tmp_path, blobs, [(f"{APP}:1", manifest)], [made.container(config, "shop/web")])
    )
    assert (found.digest, found.created) == (manifest, "")


@pytest.mark.parametrize(
    "odd", ['{"x": ' + "[" * 5000 + "]" * 5000 + "}", '{"manifests": 7}', '{"manifests": [7]}', "[]"]
)
def test_what_whoever_made_an_image_wrote_there_stops_no_check(tmp_path: Path, odd: str) -> None:
    """The runtime runs an image whose configuration is nested far deeper than Python reads."""
    blobs: made.Blobs = {}
    digest = hashlib.sha256(odd.encode()).hexdigest()
    blobs[f"{images.STORE}/{digest}"] = odd
    named = [(f"{APP}:1", f"sha256:{digest}")]
    (found,) = images.running(made.node(tmp_path, blobs, named, [made.container(f"sha256:{digest}", "shop/web")]))
    assert (found.digest, found.created, found.platform) == (f"sha256:{digest}", "", "")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (images.CONTAINERS, (1, "", "no such socket")),
        (images.CONTAINERS, (0, "[]", "")),
        (images.CONTAINERS, (0, '{"containers": [{"imageRef": 1}]}', "")),
        (images.images_of(images.KUBELETS), (124, "", "no answer within 60 s")),
        (images.containers_of(images.KUBELETS), (1, "", "ctr: refused")),
    ],
)
def test_a_runtime_that_does_not_say_is_not_evaluated(
    tmp_path: Path, command: list[str], answer: tuple[int, str, str]
) -> None:
    host = made.node(tmp_path, {}, [], [])
    host.commands[" ".join(command)] = answer
    with pytest.raises(Unavailable, match=r"container runtime|list of containers"):
        images.running(host)


def test_nothing_runs_where_no_pod_does(tmp_path: Path) -> None:
    assert images.running(made.node(tmp_path, {}, [], [])) == []


def test_what_somebody_started_past_the_kubelet_runs_too(tmp_path: Path) -> None:
    blobs: made.Blobs = {}
    (app, app_config), (own, own_config) = made.image(blobs, BUILT), made.image(blobs, "2026-01-01T00:00:00Z")
    named = [(f"{APP}:1", app), (app_config, app)]
    host = made.node(tmp_path, blobs, named, [made.container(app_config, "shop/web")], {"web": f"{APP}:1"})
    tasks = images.TASKS.replace("/*/*", "")
    for place in ("k8s.io/web-main", "k8s.io/sandbox-web", "k8s.io/by-hand", "moby/folder", "moby/other", "moby/gone"):
        Path(host.path(f"{tasks}/{place}")).mkdir(parents=True)
    kubelets = " ".join(images.containers_of(images.KUBELETS))
    host.commands[kubelets] = (0, f"{host.commands[kubelets][1]}by-hand {APP}:1 r\nstopped {APP}:1 r\n", "")
    rows = "CONTAINER IMAGE RUNTIME\nfolder - io.containerd.runc.v2\nother docker.io/evil:1 r\nstopped x:1 r\n"
    host.commands[" ".join(images.containers_of("moby"))] = (0, rows, "")
    known = f"REF TYPE DIGEST SIZE PLATFORMS LABELS\ndocker.io/evil:1 t {own} 1.0 MiB linux/amd64 -\n"
    host.commands[" ".join(images.images_of("moby"))] = (0, known, "")
    found = {one.id: one for one in images.running(host)}
    assert {name: one.pods for name, one in found.items()} == {
        app_config: ["(containerd)/k8s.io/by-hand", "shop/web/(sandbox)", "shop/web/main"],
        own_config: ["(containerd)/moby/other"],
        images.NO_IMAGE: ["(containerd)/moby/folder"],
    }
    assert (found[own_config].digest, found[own_config].names) == (own, ["docker.io/evil:1"])
    assert found[images.NO_IMAGE].name == images.NO_IMAGE


def test_where_nothing_runs_past_the_kubelet_nobody_else_is_asked(tmp_path: Path) -> None:
    host = made.node(tmp_path, {}, [], [made.container(f"sha256:{'a' * 64}", "shop/web")], {"web": "x:1"})
    for place in ("k8s.io/web-main", "k8s.io/sandbox-web"):
        Path(host.path(images.TASKS.replace("*/*", place))).mkdir(parents=True)
    images.running(host)
    asked = [" ".join(argv) for argv in host.ran if "ctr" in argv]
    assert sorted(asked) == sorted(" ".join(of(images.KUBELETS)) for of in (images.containers_of, images.images_of))
