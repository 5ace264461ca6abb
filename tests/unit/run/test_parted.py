"""Controls that are judged by what a host is made of wait until it has said so; all others are judged at once."""

from __future__ import annotations

from casemate.ansible.action.k3s_controls import parted


def control(name: str, **setting: object) -> dict[str, object]:
    return {"id": name, "setting": setting}


def test_only_what_needs_the_hosts_answer_waits() -> None:
    asked, unasked = (
        control(name, kind="advisories", of="k3s", data=data) for name, data in (("A-B", ["/x"]), ("C-D", []))
    )
    port, odd = control("E-F", kind="port", port=1), control("G-H", kind="nonsense")
    controls = {"one": [asked, unasked, port], "two": [odd]}
    assert parted(controls) == {"one": [asked], "two": []}
    assert controls == {"one": [unasked, port], "two": [odd]}
