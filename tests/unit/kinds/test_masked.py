"""What takes a package's file of its name away, what generators write, and what units name."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import pytest
from unit.fake_host import FakeHost
from unit.kinds.test_vouched import MINE, UNTIL, faults, host, sha256

from casemate.catalogue import load
from module_utils.casemate.kinds import masks, vouched

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root: files of root are what this is about")
TIMER = "/etc/systemd/system/apt-daily.timer"
OWN = "/usr/lib/systemd/system/apt-daily.timer"
SKIPPED = load()["HOST-MASKS-VOUCHED"]["setting"]["skipped"]
WHOLE = {
    "paths": ["/etc/**/*", "/run/**/*", "/usr/local/lib/**/*"],
    "masks": True,
    "comments": "#;",
    "skipped": SKIPPED,
}
SHOWN = "UnitsLoadTimestamp=Sat {at} UTC\nUnitsLoadTimestampMonotonic=\nGeneratorsFinishTimestamp=Sat {boot} UTC\n"


def placed(made: FakeHost, path: str, text: str | None) -> None:
    """A file with this text, or a link to /dev/null."""
    real = Path(made.path(path))
    real.parent.mkdir(parents=True, exist_ok=True)
    if text is None:
        real.symlink_to("/dev/null")
    else:
        real.write_text(text)
        real.chmod(0o644)


class TestMasks:
    @pytest.mark.parametrize("text", [None, "", "# off\n", "; off\n\n"])
    @pytest.mark.parametrize(
        ("path", "own"),
        [
            (TIMER, OWN),
            ("/run/systemd/system/apt-daily.timer", OWN),
            ("/etc/systemd/system.control/apt-daily.timer", OWN),
            ("/etc/systemd/system.control/site.service", "/etc/systemd/system/site.service"),
            ("/usr/local/lib/systemd/system/apt-daily.timer", OWN),
            ("/etc/systemd/system/ssh.service.d/a.conf", "/usr/lib/systemd/system/ssh.service.d/a.conf"),
            ("/etc/tmpfiles.d/tmp.conf", "/usr/lib/tmpfiles.d/tmp.conf"),
            ("/run/udev/rules.d/50-a.rules", "/usr/lib/udev/rules.d/50-a.rules"),
            ("/etc/sysctl.d/50-a.conf", "/run/sysctl.d/50-a.conf"),
            ("/etc/systemd/journald.conf.d/a.conf", "/usr/lib/systemd/journald.conf.d/a.conf"),
        ],
    )
    def test_is_told_with_what_it_takes_away(self, tmp_path: Path, path: str, own: str, text: str | None) -> None:
        made = host(tmp_path, {own: "[Unit]\n"}, {own: "[Unit]\n"})
        placed(made, path, text)
        assert faults(made, **WHOLE) == {path: f"it masks {own}"}

    def test_what_does_something_or_has_nothing_of_its_name_masks_nothing(self, tmp_path: Path) -> None:
        made = host(tmp_path, {OWN: "[Timer]\n"}, {OWN: "[Timer]\n"})
        os.symlink("/dev/null", made.path("/usr/lib/systemd/system/shipped.service"))
        for path, text in ((TIMER, "[Timer]\nOnCalendar=daily\n"), ("/etc/systemd/system/gone.service", None),
                           ("/etc/tmpfiles.d/own.conf", ""), ("/etc/systemd/system/shipped.service", None),
                           ("/etc/systemd/system/timers.target.wants/apt-daily.timer", None)):  # fmt: skip
            placed(made, path, text)
        assert faults(made, **WHOLE) == {}

    def test_casemates_own_and_what_a_node_does_not_need_is_nobodys_affair(self, tmp_path: Path) -> None:
        names = ("nftables.service", "sleep.target", "avahi-daemon.socket", "cron.service")
        made = host(tmp_path, {f"/usr/lib/systemd/system/{name}": "[Unit]\n" for name in names})
        for name in names:
            placed(made, f"/etc/systemd/system/{name}", None)
        assert list(faults(made, **WHOLE)) == ["/etc/systemd/system/cron.service"]

    def test_somebody_may_vouch_for_it(self, tmp_path: Path) -> None:
        made = host(tmp_path, {OWN: "[Timer]\n"})
        placed(made, TIMER, None)
        assert faults(made, **WHOLE, declared={TIMER: {**UNTIL, "digest": "link:/dev/null"}}) == {}

    def test_what_a_generator_masks_it_masks_by_the_kernels_command_line(self, tmp_path: Path) -> None:
        path = "/run/systemd/generator.early/apt-daily.timer"
        written = {**WHOLE, "written_by": "systemd", "writes": ["/run/systemd/generator*"]}
        for ago, told in ((-5, False), (-60, True)):
            made = loaded(host(tmp_path / str(ago), {OWN: "[Timer]\n"}), ago)
            placed(made, path, None)
            assert list(faults(made, **written)) == ([path] if told else [])

    def test_in_the_place_of_a_packages_file_it_counts_where_an_empty_file_does_nothing(self, tmp_path: Path) -> None:
        cron = "/etc/cron.d/job"
        made = host(tmp_path, {}, {cron: MINE})
        placed(made, cron, None)
        assert faults(made, comments="#") == {cron: "it masks what some brought there"}

    def test_the_folders_are_in_the_order_of_systemd(self, tmp_path: Path) -> None:
        made = host(tmp_path, {f"{folder}/x.service": "a" for folder in masks.UNITS})
        assert [masks.hidden_by(f"{folder}/x.service", made) for folder in masks.UNITS] == [
            *(f"{folder}/x.service" for folder in masks.UNITS[1:]),
            "",
        ]


def loaded(made: FakeHost, seconds: int) -> FakeHost:
    """systemd read its units so many seconds from now, and booted long before."""
    now = datetime.datetime.now(datetime.UTC)
    at, boot = (now + datetime.timedelta(seconds=ago) for ago in (seconds, -90000))
    made.commands["systemctl show"] = (0, SHOWN.format(at=f"{at:%Y-%m-%d %H:%M:%S}", boot=f"{boot:%F %T}"), "")
    return made


GENERATED = "/run/systemd/generator.late/a.service"
UNITS = {"paths": ["/run/systemd/**/*"], "written_by": "systemd", "writes": ["/run/systemd/generator*"]}


@pytest.mark.parametrize(("ago", "told"), [(-5, False), (5, False), (-60, True)])
def test_what_is_written_while_systemd_reads_its_units_is_its_generators(tmp_path: Path, ago: int, told: bool) -> None:
    other = "/run/systemd/system/b.service"
    found = faults(loaded(host(tmp_path, {GENERATED: MINE, other: MINE}), ago), **UNITS)
    assert found.pop(other) == "no package brought it"
    assert ["systemctl daemon-reload" in why for why in found.values()] == [True] * told


@pytest.mark.parametrize(("ago", "told"), [(-5, False), (-60, True)])
def test_a_link_of_a_generator_counts_by_its_name_and_may_lead_nowhere(tmp_path: Path, ago: int, told: bool) -> None:
    path = "/run/systemd/generator/multi-user.target.wants/a.service"
    made = loaded(host(tmp_path, {"/run/systemd/generator/multi-user.target.wants/x": ""}), ago)
    os.remove(made.path(f"{os.path.dirname(path)}/x"))
    os.symlink("../a.service", made.path(path))
    assert list(faults(made, **UNITS)) == ([path] if told else [])


def test_what_nobody_generated_goes_with_a_reload_and_is_not_removed_before(tmp_path: Path) -> None:
    whole: Any = {"used": "x", "ours": [], "declared": {}, **UNITS}
    (seen,) = vouched.observe([whole], loaded(host(tmp_path, {GENERATED: MINE}), -60))
    assert seen["left"] == {GENERATED: "by hand: systemctl daemon-reload"}


MATTERS = load()["HOST-ENVIRONMENT-VOUCHED"]["setting"]["matters"]
EVIL = "LD_PRELOAD=/var/tmp/x.so\n"


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("EnvironmentFile=/srv/app/env", "/srv/app/env"),
        ("EnvironmentFile=-/srv/app/env", "/srv/app/env"),
        ('EnvironmentFile = "-/srv/app/env"', "/srv/app/env"),
        ("EnvironmentFile=-/srv/%i/env", "/srv/app/env"),
        ("EnvironmentFile=-%S/app/env", "/var/lib/app/env"),
        ("EnvironmentFile=/srv/app/*", "/srv/app/env"),
        ("EnvironmentFile=\\\n /srv/app/env", "/srv/app/env"),
    ],
)
@pytest.mark.parametrize("unit", ["/usr/lib/systemd/system/app@.service", "/etc/systemd/system/k3s.service.d/a.conf"])
def test_the_environment_of_a_unit_is_judged_wherever_it_lies(tmp_path: Path, unit: str, line: str, path: str) -> None:
    named = {"paths": ["/etc/default/*"], "named_by": "EnvironmentFile", "matters": MATTERS}
    made = host(tmp_path, {unit: f"[Service]\n{line}\nExecStart=/opt/x\n", path: EVIL, "/srv/other/x": EVIL})
    assert list(faults(made, **named)) == [path]
    Path(made.path(path)).write_text("LANG=C.UTF-8\n")
    assert faults(made, **named) == {}


SERVICES = load()["HOST-SERVICES-VOUCHED"]["setting"]
PROGRAMS = {key: SERVICES[key] for key in ("paths", "named_by", "skipped", "names_only")}


class TestPrograms:
    UNIT = "/etc/systemd/system/app.service"

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ("ExecStart=/opt/app/run --x", ["/opt/app/run"]),
            ("ExecStartPre=-+/opt/app/run", ["/opt/app/run"]),
            ("ExecStop=@/opt/app/run run", ["/opt/app/run"]),
            ("ExecReload=/bin/sh /opt/app/run", ["/opt/app/run"]),
            ("ExecStart=/usr/bin/env python3 -u '/opt/app/run'", ["/opt/app/run"]),
            ('ExecStart=/bin/bash -c "exec /opt/app/run"', ["/opt/app/run"]),
            ("ExecStart=/usr/local/bin/run", []),
            ("ExecStart=/usr/bin/tail -f /opt/app/run", []),
            ("ExecStart=/opt/app/gone", []),
        ],
    )
    def test_of_a_unit_that_somebody_vouches_for_are_judged(self, tmp_path: Path, line: str, told: list[str]) -> None:
        files = {self.UNIT: f"[Service]\n{line}\n", "/opt/app/run": "#!", "/usr/local/bin/run": "#!"}
        made = host(tmp_path, files)
        mine: dict[str, Any] = {"declared": {self.UNIT: UNTIL}}
        assert list(faults(made, **PROGRAMS, **mine)) == told
        assert list(faults(made, **PROGRAMS, ours=[self.UNIT])) == told
        assert faults(made, **PROGRAMS) == {}  # it is the unit that is told

    def test_those_of_a_packages_unit_too(self, tmp_path: Path) -> None:
        unit, own = "/usr/lib/systemd/system/app.service", "/usr/lib/app/own"
        more = "/usr/lib/app/more"
        text = "[Service]\nExecStart=/lib/app/own\nExecStartPre=-/lib/app/more\n"
        made = host(tmp_path, {unit: text, own: MINE, more: "x"}, {unit: text, own: MINE})
        assert faults(made, **PROGRAMS) == {more: "no package brought it"}
        assert faults(made, **PROGRAMS, declared={more: {**UNTIL, "digest": sha256("x")}}) == {}
