"""Names of images are read as containerd reads them, and the policy of admission reads them alike."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.image_names import ADMITTED, LISTED, NAMES, D

from casemate.catalogue import declarations
from module_utils.casemate.formats import image_reference as reference

INTERNALS = declarations.variables()[1]
ALPHABET = st.sampled_from(
    [*"aZ0.:/@-_[]%\n ", "docker.io", "ghcr.io/org", "localhost", "sha256:", "@sha256:" + "0" * 64]
)


@pytest.mark.parametrize("image", NAMES)
def test_a_name_leads_to_one_repository_or_to_none(image: str) -> None:
    assert reference.repository(image) == NAMES[image]


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("ghcr.io/org/app:1", "ghcr.io/org/app:1"),
        (f"[::1]:5000/app:1{D}", "[::1]:5000/app:1"),
        (f"nginx{D}", ""),
        ("ghcr.io/org/app:1:2", ""),
    ],
)
def test_a_tag_is_named_whole_and_a_digest_alone_has_none(image: str, tag: str) -> None:
    assert reference.tagged(image) == tag


@pytest.mark.parametrize("image", NAMES)
def test_only_what_lies_below_a_listed_prefix_is_let_through(image: str) -> None:
    assert reference.is_below(image, LISTED) == (image in ADMITTED)


@given(st.lists(ALPHABET, max_size=12).map("".join))
def test_whatever_is_written_the_repository_is_whole_and_leads_to_itself(image: str) -> None:
    found = reference.repository(image)
    if found:
        assert reference.repository(found) == found
        assert (
            re.fullmatch(r"[^/]+(/[a-z0-9._-]+)+", found) and "//" not in found and ".." not in found.split("/", 1)[1]
        )
        host = found.partition("/")[0]
        assert host == "docker.io" or image.startswith(f"{host}/")


def filled(name: str) -> str:
    """A variable of the role as Ansible would fill it in."""
    text = str(INTERNALS[name]).strip()
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: filled(found[1]), text)


def test_the_policy_has_the_same_patterns() -> None:
    assert filled("__k3s_cluster_image_reference") == f"^{reference.REFERENCE}$"
    assert filled("__k3s_cluster_image_local") == f"^{reference.LOCAL}$"
    assert filled("__k3s_cluster_image_repository") == f"^({reference.HOST}/{reference.PATH})"
