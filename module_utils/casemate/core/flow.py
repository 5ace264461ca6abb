"""How a value is written for a person: YAML in flow style, which JSON is, on one line and whole.

Of two long lists only the items are written in which they differ, so that nothing has to be cut. Pure.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Iterator, List

FEW_LINES = 240
"""Characters that two values may have together to be written whole."""
MOST = 5
"""Items that are written of many; the others are counted."""


def several(words: List[str], most: int = MOST, between: str = "; ") -> str:
    """What is to be said of several things, as one line that does not grow with a cluster."""
    return between.join([*words[:most], *([f"and {len(words) - most} more"] if len(words) > most else [])])


def flow(value: Any) -> str:
    """A value as YAML in flow style; one that is not there is `absent`."""
    return "absent" if value is None else json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)


def plain(value: Any) -> str:
    """The same for a sentence: a text stands without quotes, unless it is empty."""
    return value if isinstance(value, str) and value else flow(value)


def quoted(value: Any) -> str:
    """The same for an input that is refused: a text in single quotes, which show where it begins and ends."""
    return "null" if value is None else repr(str(value)) if isinstance(value, str) else flow(value)


def short(*values: Any) -> bool:
    """Whether values fit a few lines together."""
    return sum(len(flow(value)) for value in values) <= FEW_LINES


def lists_apart(
    want: List[Any], have: List[Any], same: Callable[[Any, Any], bool] = lambda one, other: bool(one == other)
) -> Iterator[str]:
    """What a list lacks, and what it has that is not demanded; or that only the order differs.

    `same` says whether a demanded item and one that is there are one; a repeated item counts as often as it is there.
    """
    lacking, beyond = list(want), []
    for item in have:
        at = next((n for n, wanted in enumerate(lacking) if same(wanted, item)), None)
        if at is None:
            beyond.append(item)
        else:
            del lacking[at]
    for word, found in (("lacks", lacking), ("has, not demanded,", beyond)):
        if found:
            more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
            yield f"{word} {', '.join(map(flow, found[:MOST]))}{more}"
    if not lacking and not beyond:
        yield "has the same items in another order"
