"""YAML of manifests is read as PyYAML reads it, or refused by line."""

from __future__ import annotations

import pytest
import yaml

from module_utils.casemate.formats.yaml_documents import documents
from module_utils.casemate.formats.yaml_subset import YamlError

SAMPLES = {
    "mapping": "a: b\nc: 1\n",
    "scalars": "a: true\nb: null\nc: ~\nd:\ne: '1'\nf: \"2\"\ng: 007\nh: -3\ni: it's\nj: 10.43.0.10\nk: no\n",
    "nested": "a:\n  b:\n    c: d\n  e: f\n",
    "list": "a:\n  - b\n  - 1\n",
    "list as far to the left": "a:\n- b\n- c\nd: e\n",
    "list of mappings": "a:\n- b: c\n  d:\n  - e\n  - f: g\n    h: i\n- j: k\n",
    "list of lists": "a:\n- - b\n  - c\n- - d\n",
    "dash alone": "a:\n-\n  b: c\n-\n  d: e\n",
    "flags": "a:\n- --port=1\n- --names=b,c\n- -v\n",
    "brackets": 'a: [b, "c d", \'e\', 1, -f]\ng: []\nh: {}\ni: ["*"]\n',
    "comments": "# a\na: b # c\n# d\ne: # f\n  g: h\n\n  # i\n  j: 'k # l'\n",
    "quoted keys": "\"a: b\": c\n'd': e\n",
    "keys with more": "kubernetes.io/os: linux\nfoo-bar_baz/x: z\n",
    "text": "a: |\n  b {\n      c\n\n  }\nd: e\n",
    "text without its end": "a: |-\n  #!/bin/sh\n  b\nc: d\n",
    "text at the end": "a:\n  b: |\n    c\n\n\n",
    "text without lines": "a: |\nb: c\n",
    "documents": "---\na: b\n---\n# nothing\n---\nc: d\n",
    "address": "a: [10.43.0.10,fd00:43::a]\nb: https://%{X}%/c-1+up2.tgz\n",
}
REFUSED = {
    "anchor": "a: &b c\n", "alias": "a: *b\n", "tag": "a: !!str b\n", "folded": "a: >\n  b\n",
    "mapping in braces": "a: {b: c}\n",
    "twice": "a: b\na: c\n", "tabulator": "a:\n\tb: c\n", "no mapping": "a b\n", "further in": "a: b\n  c: d\n",
    "kept": "a: |+\n  b\n", "float": "a: 1.5\n", "list over lines": "a: [b,\n  c]\n",
    "text to the left": "a: |\n    b\n  c\n",
    "to the left": "  a: b\nc: d\n", "two lines": "a: b\n  c\n",
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_it_is_read_as_yaml_reads_it(name: str) -> None:
    expected = [document for document in yaml.safe_load_all(SAMPLES[name]) if document is not None]
    assert documents(SAMPLES[name]) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_else_yaml_can_say_is_refused_by_line(name: str) -> None:
    with pytest.raises(YamlError, match=r"^line \d: "):
        documents(REFUSED[name])
