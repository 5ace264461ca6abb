"""What no sentence for people may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator

PYTHON = {
    "a value of Python": r"(?<![\w'/.-])(None|True|False)(?![\w'/-])",
    "a list, mapping or set of Python": r"[\[{(]'|': |\b(dict|set|frozenset|tuple|OrderedDict)\(",
    "an object of Python": r"<[\w.]+ (object )?at 0x|\b(Setting|Verdict|Part|Source|Result|PosixPath)\(",
    "bytes of Python": r"(?<!\w)b'[^']*'",
    "a cut value": r"\.\.\.|\[… \d+ …\]",
    "an empty comparison": r"expected \{\}, is \{\}|expected (\S+), is \1$|expected , |is $",
}
"""What is wrong -> how it is recognised."""


def unfit(text: str, *own: object) -> str:
    """What makes a text unfit for people, or nothing; words within `own` are somebody else's (Kubernetes' True)."""
    for word in texts(own):
        text = text.replace(word, "it") if word in ("True", "False", "None") else text
    return "; ".join(what for what, pattern in PYTHON.items() if re.search(pattern, text))


def texts(value: object) -> Iterator[str]:
    """Every text in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts(one)
