"""Statements of OpenVEX: whom they are about, which of them answer, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from packageurl import PackageURL

from casemate.supply.openvex import Statement, VexError, answer, load

URL, K3S = "pkg:golang/golang.org/x/net@v0.1.0", "pkg:github/k3s-io/k3s@v1.36.3%2Bk3s1"


def said(products: Any, status: str = "not_affected", **more: Any) -> dict[str, Any]:
    made = {"vulnerability": {"name": "CVE-1", "aliases": ["GO-1"]}, "products": products, "status": status}
    return {**made, "justification": "vulnerable_code_not_in_execute_path", **more}


def written(folder: Path, *statements: Any, **more: Any) -> Path:
    path = folder / "vex.json"
    head = {"@context": "https://openvex.dev/ns/v0.2.0", "timestamp": "2026-11-01T00:00:00Z"}
    path.write_text(json.dumps({**head, "statements": list(statements), **more}))
    return path


def answered(path: Path, name: str = "GO-1", component: str = URL, product: str = K3S) -> Statement | None:
    urls = [[PackageURL.from_string(one)] for one in (component, product)]
    return answer(load(path), [name], *urls)


@pytest.mark.parametrize(
    ("products", "counts"),
    [
        ([{"@id": URL}], True),
        ([URL], True),  # as v0.0.1 had it
        ([{"identifiers": {"purl": URL}}], True),
        ([{"@id": "pkg:golang/golang.org/x/net"}], True),
        ([{"@id": "pkg:golang/golang.org/x/net@v0.2.0"}], False),
        ([{"@id": "pkg:golang/golang.org/x/network@v0.1.0"}], False),
        ([{"@id": f"{URL}?arch=arm64"}], False),
        ([{"@id": K3S}], True),
        ([{"@id": K3S.replace("1.36.3", "1.36.2")}], False),
        ([{"@id": K3S, "subcomponents": [{"@id": URL}]}], True),
        ([{"@id": K3S, "subcomponents": [{"@id": "pkg:golang/golang.org/x/text"}]}], False),
        ([{"@id": K3S, "subcomponents": [{"@id": "urn:something"}]}], False),
        ([{"@id": f"{URL}#html"}], False),
        ([{"@id": "urn:k3s"}], False),
        ([], False),
        (None, False),
    ],
)
def test_a_statement_is_about_the_component_or_about_a_product_that_has_it(
    tmp_path: Path, products: Any, counts: bool
) -> None:
    assert bool(answered(written(tmp_path, said(products)))) is counts


def test_parts_that_stand_beside_the_products_as_in_the_first_version_limit_all_of_them(tmp_path: Path) -> None:
    for part, counts in ((URL, True), ("pkg:golang/golang.org/x/text", False), ("urn:something", False)):
        of_k3s = said([K3S], subcomponents=[part])
        assert bool(answered(written(tmp_path, of_k3s))) is counts, part


def test_only_that_nothing_is_affected_or_that_it_is_fixed_answers(tmp_path: Path) -> None:
    for status, counts in (("not_affected", 1), ("fixed", 1), ("affected", 0), ("under_investigation", 0)):
        assert bool(answered(written(tmp_path, said([URL], status)))) is bool(counts), status
    assert not answered(written(tmp_path, said([URL])), "CVE-2")
    assert answered(written(tmp_path, said([URL], vulnerability="GO-1")))


def test_the_newest_statement_counts(tmp_path: Path) -> None:
    later = said([URL], "affected", timestamp="2026-11-02T00:00:00+01:00")
    earlier = said([URL], timestamp="2026-11-01T22:59:00Z")
    assert not answered(written(tmp_path, later, earlier))
    assert not answered(written(tmp_path, said([URL]), said([URL], "affected")))
    assert answered(written(tmp_path, said([URL], "affected"), said([URL])))


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        (said([URL], "fine"), "'fine' is no status"),
        (said([URL], justification=None), "gives no reason"),
        (said([URL], justification="we think so"), "'we think so' is no justification"),
        (said([URL], justification=["component_not_present"]), "is no justification"),
        (said([URL], vulnerability={}), "name"),
        (said([URL], timestamp="soon"), "soon"),
        ("text", "string indices"),
        (said(["pkg:"]), "purl"),
    ],
)
def test_what_is_no_statement_is_refused_with_the_file(tmp_path: Path, statement: Any, why: str) -> None:
    with pytest.raises(VexError, match=rf"vex\.json holds no statements of OpenVEX: .*{why}"):
        load(written(tmp_path, statement))


def test_a_file_of_another_sort_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vex.json"
    for text in ("{", "[]", '{"statements": []}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(VexError, match="holds no statements"):
            load(path)
    with pytest.raises(VexError, match="cannot be read"):
        load(tmp_path / "none.json")
