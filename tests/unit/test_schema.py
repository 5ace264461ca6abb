"""The schema of a kind's settings is made of their types, so that both are declared once."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

import pytest

from module_utils.casemate.core.schema import Field, Key, Scalar, problems, schema_of
from module_utils.casemate.kinds import KINDS


class Needed(TypedDict):
    path: Annotated[str, Key("where", pattern=r"/\S+")]


class Setting(Needed, total=False):
    state: Annotated[Literal["there", "gone"], Key("what is demanded")]
    names: Annotated[list[str], Key("who")]
    more: Annotated[dict[str, Any], Key("what else")]
    value: Annotated[Scalar, Key("how much")]
    body: Annotated[Any, Key("anything")]


class Silent(TypedDict):
    path: str


class Odd(TypedDict):
    path: Annotated[bytes, Key("where")]


def test_types_keys_and_totality_make_the_schema() -> None:
    assert schema_of(Setting) == {
        "path": Field("str", True, (), r"/\S+", "where"),
        "state": Field("str", False, ("there", "gone"), "", "what is demanded"),
        "names": Field("list", False, (), "", "who"),
        "more": Field("dict", False, (), "", "what else"),
        "value": Field("scalar", False, (), "", "how much"),
        "body": Field("any", False, (), "", "anything"),
    }


@pytest.mark.parametrize(("setting", "error"), [(Silent, TypeError), (Odd, KeyError)])
def test_a_key_that_says_nothing_or_has_another_type_is_refused(setting: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        schema_of(setting)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_key_says_what_it_is_for(name: str) -> None:
    assert all(field.help for field in KINDS[name].schema.values())


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_setting_is_held_against_the_types_of_its_kind(name: str) -> None:
    fields = KINDS[name].schema
    needed = {f"x.{key}: missing" for key, field in fields.items() if field.required}
    assert set(problems({}, fields, "x")) == needed == {f"x.{key}: missing" for key in required(name)}


def required(name: str) -> frozenset[str]:
    keys: frozenset[str] = getattr(KINDS[name].setting, "__required_keys__")  # noqa: B009 - mypy knows no such name
    return keys
