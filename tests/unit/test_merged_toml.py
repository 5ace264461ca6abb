"""Several texts of TOML as one: nothing is lost, moved or said twice, and what contradicts itself is named."""

from __future__ import annotations

import datetime
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casemate.preflight.merged_toml import merge, render

LAB = "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nrestrict_oom_score_adj = true\n"
RUNTIME = "[plugins.'io.containerd.cri.v1.runtime']\n"


@pytest.mark.parametrize(
    ("texts", "together"),
    [
        ({}, {}),
        ({"a": "", "b": "# nothing\n"}, {}),
        ({"a": "version = 3\n", "b": " version=3 # of containerd 2\n"}, {}),
        ({"a": LAB}, {"plugins": {"io.containerd.cri.v1.runtime": {"restrict_oom_score_adj": True}}}),
        (
            {"a": LAB, "b": RUNTIME + "max = 1\n"},  # the same table
            {"plugins": {"io.containerd.cri.v1.runtime": {"restrict_oom_score_adj": True, "max": 1}}},
        ),
        ({"a": "[x]\na = 1\n", "b": "oom_score = -999\n"}, {"x": {"a": 1}, "oom_score": -999}),  # no key of x
        ({"a": "[x]\na = 1\n", "b": "x.b = 2\n"}, {"x": {"a": 1, "b": 2}}),
        ({"a": "[x.y]\n", "b": "[x]\na = 1\n"}, {"x": {"y": {}, "a": 1}}),
        ({"a": "a = [1, 2]\n", "b": "a = [1, 2]\n"}, {"a": [1, 2]}),
        ({"a": "s = '''\nversion = 3\n'''\n"}, {"s": "version = 3\n"}),  # a line of a text is no line of the file
        ({"a": "[x]\nversion = 2\n"}, {"x": {"version": 2}}),
        ({"a": "[[list]]\na = 1\n[[list]]\nb = 1\n"}, {"list": [{"a": 1}, {"b": 1}]}),
    ],
)
def test_texts_say_together_what_they_say(texts: dict[str, str], together: dict[str, Any]) -> None:
    merged, problems = merge(texts)
    assert (merged, problems) == (together, [])
    assert tomllib.loads("version = 3\n" + render(merged)) == {"version": 3, **together}


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ({"lab": "a = 1\n", "more": "a = 2\n"}, "lab and more differ in a; allowed: one value"),
        ({"lab": LAB, "more": LAB.replace("true", "false")}, 'lab and more differ in plugins."io.containerd.cri.v1.'),
        ({"lab": "a = 1\n", "more": "a = true\n"}, "lab and more differ in a"),
        ({"lab": "a = 1\n", "more": "a = 1.0\n"}, "lab and more differ in a"),
        ({"lab": "a = 1\n", "more": "[a]\n"}, "lab and more differ in a"),
        ({"lab": "[a]\n", "more": "a = 1\n"}, "lab and more differ in a"),
        ({"lab": "a = [1]\n", "more": "a = [2]\n"}, "lab and more differ in a"),
        ({"lab": "[[a]]\nb = 1\n", "more": "[[a]]\nb = 2\n"}, "lab and more differ in a"),
        ({"lab": "version = 2\n"}, "lab has another version than 3"),
        ({"lab": "version = '3'\n"}, "lab has another version than 3"),
    ],
)
def test_what_contradicts_itself_is_named_and_never_shown(texts: dict[str, str], problem: str) -> None:
    (said,) = merge(texts)[1]
    assert said.startswith(problem)


KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
MOMENTS = st.one_of(
    st.dates(datetime.date(1, 1, 1)), st.times(), st.datetimes(), st.datetimes(timezones=st.just(datetime.UTC))
)
VALUES = st.recursive(
    st.one_of(
        st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False),
        st.text(st.characters(exclude_categories=["Cs"])), MOMENTS,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_whatever_is_rendered_is_read_back(table: dict[str, Any]) -> None:
    assert tomllib.loads(render(table)) == table
