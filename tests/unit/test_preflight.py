"""Preflight: every kind of wrong input, host and lock is refused by one message that helps; right ones pass."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from casemate import ROOT
from casemate.preflight import combinations, host_facts
from casemate.preflight import inputs as preflight

RIGHT = {"casemate_admin_sources": ["198.18.0.0/24", "2001:db8::/32", "203.0.113.9"]}
HOST = {
    "uid": "0",
    "machine": "x86_64",
    "os": "debian 12",
    "python": "3.11",
    "data": "5000",
    "binary": "5000",
    "state": "5000",
    "home": "5000",
    "etc": "5000",
    "writable": "yes",
    "source": "198.18.0.254",
}
SPECS: dict[str, dict[str, Any]] = {
    "k3s_x_days": {"type": "int", "min": 1, "max": 30, "default": 7},
    "k3s_x_least": {"type": "int", "min": 5},
    "k3s_x_ratio": {"type": "float", "min": 0, "max": 1},
    "k3s_x_on": {"type": "bool"},
    "k3s_x_mode": {"type": "str", "choices": ["baseline", "b"]},
    "k3s_x_octal": {"type": "str", "choices": ["027", "077"]},
    "k3s_x_time": {"type": "str", "pattern": "[0-9]+s", "words": "seconds such as 60s"},
    "k3s_x_names": {"type": "list", "elements": "str", "pattern": "[a-z]+", "words": "lower-case letters"},
    "k3s_x_few": {"type": "list", "elements": "str", "min": 1, "max": 2},
    "k3s_x_map": {"type": "dict"},
    "k3s_x_sized": {"type": "dict", "keys": {"pattern": "[a-z]", "words": "one letter"}, "values": {"type": "int"}},
    "k3s_x_jobs": {
        "type": "list",
        "elements": "dict",
        "options": {"name": {"type": "str", "required": True}, "every": {"type": "int", "min": 5}},
    },
    "k3s_x_token": {"type": "int"},
    "k3s_x_pin": {"type": "int", "no_log": True},
    "k3s_x_password": {"type": "str", "pattern": ".{20,}", "words": "20 characters"},
}


def inputs(**values: Any) -> list[str]:
    return preflight.input_problems(values, SPECS)


@pytest.mark.parametrize(
    "values",
    [
        {"k3s_x_ratio": 0.5},
        {"k3s_x_on": "no"},
        {"k3s_x_map": {"any": {"thing": None}}},
        {"k3s_x_jobs": [{"name": "n", "every": 5}]},
        {"k3s_x_few": ["a", "b"]},
        {"ansible_host": "x", "own_variable": 1, "__k3s_x_internal": 1},
    ],
)
def test_right_values_pass(values: dict[str, Any]) -> None:
    assert inputs(**values) == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (
            "k3s_x_days", 0,
            "0; allowed: a whole number from 1 to 30. Correct it in the inventory, or remove it for the default 7",
        ),
        ("k3s_x_days", "31", "k3s_x_days is '31'; allowed: a whole number from 1 to 30."),
        ("k3s_x_days", 1.5, "k3s_x_days is 1.5; allowed: a whole number from"),
        ("k3s_x_days", True, "k3s_x_days is true; allowed: a whole number from"),
        ("k3s_x_days", None, "k3s_x_days is null; allowed: a whole number from"),
        ("k3s_x_days", [5], "k3s_x_days is [5]; allowed: a whole number from"),
        ("k3s_x_days", {"a": "canary"}, "k3s_x_days is a mapping (not shown); allowed"),
        ("k3s_x_least", 4, "allowed: a whole number of 5 or more."),
        ("k3s_x_ratio", 1.1, "allowed: a number from 0 to 1."),
        ("k3s_x_on", 1, "k3s_x_on is 1; allowed: true or false."),
        ("k3s_x_mode", "basline", "is 'basline'; allowed: one of baseline, b (did you mean baseline?). Correct it"),
        ("k3s_x_octal", 23, 'k3s_x_octal is 23; allowed: one of "027" (with the quotes), "077" (with the quotes).'),
        ("k3s_x_time", "60", "k3s_x_time is '60'; allowed: seconds such as 60s."),
        ("k3s_x_time", "60s\nx", "k3s_x_time is '60s\\nx'; allowed: seconds such as 60s."),
        ("k3s_x_names", "abc", "k3s_x_names is 'abc'; allowed: a list, each item lower-case letters."),
        ("k3s_x_names", ["abc", "A"], "k3s_x_names[1] is 'A'; allowed: lower-case letters. Correct it"),
        ("k3s_x_names", [None], "k3s_x_names[0] is null; allowed: lower-case letters."),
        ("k3s_x_few", [], "k3s_x_few is []; allowed: a list of 1 to 2 items, each item text."),
        ("k3s_x_few", ["a", "b", "c"], "k3s_x_few is ['a', 'b', 'c']; allowed: a list of 1 to 2 items"),
        ("k3s_x_map", [], "k3s_x_map is a list (not shown); allowed: a mapping."),
        ("k3s_x_jobs", [{}], "k3s_x_jobs[0].name is missing; allowed: text. Add it"),
        (
            "k3s_x_jobs", ["n"],
            "k3s_x_jobs[0] is 'n'; allowed: a mapping with name (text), every (a whole number of 5 or more).",
        ),
        (
            "k3s_x_jobs", [{"name": "n", "evry": 5}],
            "k3s_x_jobs[0].evry is not known (did you mean every?); allowed: name, every.",
        ),
        ("k3s_x_jobs", [{"name": "n", "every": 4}], "k3s_x_jobs[0].every is 4; allowed: a whole number of 5 or more."),
        ("k3s_x_sized", {"big": 4}, "k3s_x_sized has the name big; allowed: one letter. Correct it"),
        ("k3s_x_sized", {"b": "x"}, "k3s_x_sized.b is 'x'; allowed: a whole number."),
        ("k3s_x_sized", 5, "is 5; allowed: a mapping of names (one letter) to values (a whole number)."),
        ("k3s_x_dayz", 1, "k3s_x_dayz is not a variable of Casemate (did you mean k3s_x_days?). Correct or remove it"),
        ("casemate_zzz", 1, "casemate_zzz is not a variable of Casemate. Correct or remove it"),
    ],
)  # fmt: skip
def test_wrong_values_are_named_with_what_is_allowed(name: str, value: Any, says: str) -> None:
    (problem,) = inputs(**{name: value})
    assert says in problem
    assert "canary" not in problem


@pytest.mark.parametrize(
    ("name", "why", "says"),
    [
        (
            "k3s_x_days", "'nothing' is undefined\nsecond line",
            "k3s_x_days is '{{ nothing }}', which fails: 'nothing' is undefined; allowed: a whole number from",
        ),
        ("k3s_x_token", "no way from canary to a number", "is text (not shown), which fails: its value is a secret;"),
    ],
)  # fmt: skip
def test_an_expression_that_fails_is_shown_with_the_reason(name: str, why: str, says: str) -> None:
    (problem,) = preflight.input_problems({name: "{{ nothing }}"}, SPECS, {name: why})
    assert says in problem
    assert "canary" not in problem


@pytest.mark.parametrize(
    "name", ["k3s_x_token", "k3s_x_pin", "k3s_x_password", "k3s_x_secret", "k3s_x_map", "k3s_x_names"]
)
def test_no_message_shows_what_could_be_a_secret(name: str) -> None:
    value: Any = {"key": "canary"} if name == "k3s_x_names" else ["canary"] if name == "k3s_x_map" else "canary"
    (problem,) = inputs(**{name: value})
    assert name in problem
    assert "canary" not in problem


def test_all_problems_are_listed_at_once() -> None:
    assert len(inputs(k3s_x_days=99, k3s_x_mode="z", k3s_nope=1)) == 3


def test_the_shipped_inputs_accept_a_minimal_inventory_and_need_admin_sources() -> None:
    known = preflight.known_inputs()
    assert preflight.input_problems(RIGHT, known) == []
    (problem,) = preflight.input_problems({}, known)
    assert problem.startswith("casemate_admin_sources is missing")
    assert "casemate_admin_sources: [" in problem


HERE = str(Path(__file__).parent)
NAMES = ["ops", "_x-1", "john.doe", "John", "a.b-c_d", "0day", "svc_k3s.", "a" * 32]
NO_NAMES: list[Any] = [
    "root;id", "", "a" * 33, 5, "5", "-x", "+x", "~x", ".x", "a b", "a:b", "a,b", "a/b", "a@b", "a*", "a?", "!a", "a\n",
    "jürgen", "a\\b", "a'b", 'a"b', "$(id)", "ALL", "machine$",
]  # fmt: skip
"""What a pattern of AllowUsers, a shell or sudo would take for more than a name, or a program for an option."""
ID, WAIVER = "SSH-ROOT-REFUSED", {"reason": "legacy clients", "owner": "ops", "expires": "2099-01-31"}
TOOL, VOUCHED = "/usr/local/bin/tool", {**WAIVER, "digest": f"sha256:{64 * '0'}"}
FILE = ("the absolute path of a file that is on this controller", [__file__], ["signers", "/nowhere", "", HERE])
SCANNER = {"kind": "trivy", "path": __file__, "sha256": "a" * 64, "database": HERE}
INPUTS: dict[str, tuple[str, list[Any], list[Any]]] = {
    "casemate_admin_sources": (
        "an address or a network without host bits, such as 192.0.2.0/24",
        [["192.0.2.0/24"], ["2001:db8::/32", "203.0.113.9"]],
        ["192.0.2.0/24", [], [""], ["nowhere"], ["192.0.2.5/24"], [5], [None]],
    ),
    "casemate_level": ("one of baseline, strict", ["strict"], ["paranoid", "", 1, ["strict"], True]),
    "casemate_waivers": (
        "",
        [{}, {ID: WAIVER}, {ID: {**WAIVER, "expires": datetime.date(2099, 1, 31)}}],
        ["SSH-ROOT-REFUSED", ["SSH-ROOT-REFUSED"], 5],
    ),
    "casemate_vouched": (
        "",
        [
            {},
            {TOOL: VOUCHED},
            {"Secret/web/ci": VOUCHED, "ClusterRole/system:x": VOUCHED},
            {"tcp/9100": VOUCHED, "group/sudo/eve": VOUCHED, "table ip nat: chain PREROUTING": VOUCHED},
        ],
        ["/usr/local/bin/tool", ["/usr/local/bin/tool"], 5],
    ),
    "casemate_advisory_data": (
        "the absolute path of a file or folder that is on this controller",
        [[__file__, HERE], []],
        ["/nowhere", ["/nowhere"], ["relative"], [5], HERE, {}],
    ),
    "casemate_advisory_vex": (FILE[0], [[__file__], []], [__file__, [HERE], ["/nowhere"]]),
    "casemate_advisory_severity": (
        "one of low, medium, high, critical",
        ["low", "critical"],
        ["severe", "", 5, ["low"]],
    ),
    "casemate_advisory_max_age": ("a whole number from 1 to 3650", [1, "14", 3650], [0, 3651, "soon", "", 1.5, [1]]),
    "casemate_advisory_waivers": (
        "",
        [{}, {"GO-2026-1": WAIVER}, {"CVE-2026-1": {**WAIVER, "expires": datetime.date(2099, 1, 31)}}],
        ["GO-2026-1", ["GO-2026-1"], 5],
    ),
    "casemate_image_list": ("the absolute path of a file", [__file__], ["images.json", "/nowhere", "", HERE, 5]),
    "casemate_image_digests_only": ("true or false", [True, "no"], ["maybe", "", 1, []]),
    "casemate_image_verifiers": (
        "",
        [[], [{"name": "cosign", "path": "/x", "sha256": "a" * 64, "arguments": ["{image}"], "timeout": 9}]],
        ["cosign", {}, 5],
    ),
    "casemate_registries": (
        "",
        [
            [{"host": "docker.io"}],
            [{"host": "ghcr.io", "path": "my-org/app"}, {"host": "registry.example.org:5000", "ca_file": __file__}],
            [{"host": "[2001:db8::1]:5000", "mirrors": ["https://mirror.example.org/v2/hub", "https://ghcr.io"]}],
            [{"host": "localhost", "credentials_file": __file__}],
        ],
        ["docker.io", [], ["docker.io"], 5],
    ),
    "casemate_image_scans": (
        "",
        [{"scanner": SCANNER, "results": HERE}, {"scanner": SCANNER, "results": HERE, "fails_from": "low"}],
        ["trivy", [], 5],
    ),
    "casemate_image_updates": ("", [{"answers": HERE}, {"answers": HERE, "max_age_days": 1}], [HERE, [], 5]),
    "casemate_image_max_age_days": ("a whole number from 1 to 3650", [1, "365"], [0, 3651, "a year", []]),
    "casemate_accept_not_evaluated": (
        "a reason code of a report, such as kernel",
        [["kernel", "api_semantics"]],
        ["kernel", ["Kernel!"], [""]],
    ),
    "casemate_agents_at_once": (
        "a number of 1 or more, a share such as 25%, or a list of these",
        [1, "3", "25%", "100%", [1, "25%"], [1, 5, 10]],
        [0, -1, "0%", "101%", "many", True, [], [1, 0], [[1]], 1.5, {}],
    ),
    "casemate_k3s_version": ("a K3s version such as v1.36.4+k3s1", ["v1.36.4+k3s1"], ["1.36.4", "", 1.36, "latest"]),
    "casemate_artifact_dir": (
        "the absolute path of a folder that is on this controller",
        [HERE],
        ["relative", "/nowhere", "", __file__, 5],
    ),
    "casemate_artifact_mirror": (
        "a URL that begins with https://",
        ["https://mirror.example/k3s"],
        ["http://mirror.example", "", "https://me:pw@mirror.example", 5],
    ),
    "casemate_artifact_lock": (
        "the absolute path of a file that is on this controller",
        [__file__],
        ["lock.json", "/nowhere", "", HERE],
    ),
    "casemate_allowed_signers": FILE,
    "casemate_revoked_signers": FILE,
    "casemate_lock_threshold": ("a whole number from 1 to 16", [1, 2, 16], [0, 17, "two", True, 1.5]),
    "casemate_automation_user": ("the name of an account", NAMES, NO_NAMES),
    "casemate_automation_key": FILE,
    "casemate_first_user": ("the name of an account", ["root", *NAMES], NO_NAMES),
    "casemate_first_key": FILE,
    "casemate_first_login": ("one of close, keep", ["close", "keep"], ["closed", "", True]),
    "casemate_other_firewalls": ("one of keep, stop", ["keep", "stop"], ["off", False, "", ["stop"]]),
    "casemate_http_proxy": (
        "http:// or https://, a host and a port",
        ["http://proxy.example.org:3128", "http://192.0.2.1:3128/", "https://[2001:db8::1]:3128", "http://proxy"],
        [
            "proxy:3128",
            "",
            "http://me:canary@proxy:3128",
            "http://me@proxy:3128",
            "socks5://proxy:1080",
            3128,
            "http://proxy:3128/path",
            'http://proxy:3128"\nExecStartPre=/bin/sh',
        ],
    ),
    "casemate_https_proxy": (
        "http:// or https://, a host and a port",
        ["http://proxy.example.org:3128"],
        ["proxy:3128", "http://me:canary@proxy:3128"],
    ),
    "casemate_no_proxy": (
        "a host, a domain such as .example.org",
        [[], [".example.org", "192.0.2.0/24", "2001:db8::/32", "mirror.local:8080"]],
        [".example.org", ["a b"], ["a,b"], ['"'], ["%n"], [""]],
    ),
    "casemate_cluster_cidr": (
        "a network without host bits, such as 10.42.0.0/16",
        ["10.42.0.0/16", "10.42.0.0/16,fd00::/56"],
        ["10.42.0.1/16", "", "pods", "10.42.0.0/16,", 10, "10.42.0.0/16,10.44.0.0/16", "10.42.0.0/16, fd00::/56"],
    ),
    "casemate_service_cidr": (
        "a network without host bits, such as 10.42.0.0/16",
        ["10.43.0.0/16"],
        ["10.43.0.1/16", "", "no"],
    ),
    "k3s_access_allow_users": ("the name of an account", [[], NAMES], ["alice", *([n] for n in NO_NAMES), [{}]]),
    "k3s_access_sudo_without_password": (
        "the name of an account, or of a group after a %",
        [["nagios", "%ops"], NAMES, ["%" + n for n in NAMES]],
        ["nagios", [""], ["%ALL"], ["%"], ["%%ops"], ["%#100"], *([n] for n in NO_NAMES)],
    ),
    "k3s_access_authorized_keys_files": (
        "a path below the home of the account, or below /etc or /var/lib",
        [[".ssh/authorized_keys"], ["/etc/ssh/keys/%u", "/var/lib/keys/%u"]],
        [[], ".ssh/authorized_keys", ["/var/tmp/%u"], ["../x"], [".ssh/a b"], ["/etc/../tmp/%u"], ["none"] * 5],
    ),
    "k3s_access_trusted_user_ca_keys": (
        "none, or the path of a file below /etc",
        ["none", "/etc/ssh/user_ca.pub"],
        ["", "yes", "/tmp/ca.pub", "/etc/../tmp/ca", "ca.pub", []],
    ),
    "k3s_access_guard_seconds": ("a whole number from 60 to 900", [60, 900, "120"], [59, 901, "two", "", 60.5, True]),
    "k3s_access_max_auth_tries": ("a whole number from 1 to 10", [1, 10], [0, 11, "x"]),
    "k3s_access_login_grace_seconds": ("a whole number from 5 to 600", [5, 600], [4, 601, []]),
    "k3s_access_idle_seconds": ("a whole number from 1 to 3600", [1, 3600], [0, 3601, "1m"]),
    "k3s_cluster_admins": (
        "the name of a user, group or service account",
        [["oidc:alice@example.org"]],
        ["a", [""], ["a b"]],
    ),
    "k3s_cluster_token_namespaces": ("the name of a namespace", [["ci"]], ["ci", [""], ["CI"], ["a/b"]]),
    "k3s_cluster_psa_levels": (
        "",
        [{}, {"longhorn-system": "privileged", "shop": "baseline"}],
        ["shop", ["shop"], {"*": "baseline"}, {"default": "baseline"}, {"kube-system": "privileged"}, {"a": "none"}],
    ),
    "k3s_cluster_volume_folder": (
        "the absolute path of a folder",
        ["/srv/volumes", "/mnt/a-b.c"],
        ["", "srv", "/srv/", "/a b", ["/srv"], "/{{ x }}"],
    ),
    "k3s_control_plane_disable": (
        "one of coredns, local-storage, metrics-server, runtimes, servicelb, traefik",
        [[], ["traefik"]],
        ["traefik", ["treafik"], [""]],
    ),
    "k3s_control_plane_tls_san": (
        "a host name or an address",
        [["api.example.org", "192.0.2.7", "2001:db8::7"]],
        ["a", [""], ["a b"], ["-a"]],
    ),
    "k3s_control_plane_encryption_provider": ("one of secretbox, aescbc", ["secretbox"], ["aesgcm", "", "aes-cbc"]),
    "k3s_control_plane_audit_max_age_days": ("a whole number from 1 to 3650", [1, 3650], [0, 3651, "30d"]),
    "k3s_control_plane_audit_max_backups": ("a whole number from 1 to 1000", [1, 1000], [0, 1001, "ten"]),
    "k3s_control_plane_audit_max_size_mib": ("a whole number from 1 to 10240", [1, 10240], [0, 10241, "100M"]),
    "k3s_control_plane_request_timeout": ("seconds from 1s to 300s", ["1s", "60s", "300s"], ["0s", "301s", "", 60]),
    "k3s_control_plane_terminated_pod_gc_threshold": ("a whole number from 1 to 1000", [1, 1000], [0, 1001, "x"]),
    "k3s_control_plane_event_qps": ("a whole number from 10 to 10000", [10, 10000], [9, 10001, "fast"]),
    "k3s_control_plane_event_burst": ("a whole number from 10 to 100000", [10, 100000], [9, 100001, ""]),
    "k3s_control_plane_psa_exempt_namespaces": (
        "the name of a namespace",
        [["kube-system"], ["default-web"], []],
        ["x", [""], ["kube_x"], ["*"], ["kube-*"], ["default"], ["kube-public"], ["default\n"], ["a" * 64], [None]],
    ),
    "k3s_control_plane_apiserver_args": (
        "a flag without leading dashes, as name=value, such as v=2",
        [["v=2", "profiling=false"]],
        ["v=2", [""], ["--v=2"], ["a=b\nc"], [{"v": 2}]],
    ),
    "k3s_firewall_ssh_port": ("a whole number from 1 to 65535", [1, 65535, "22"], [0, 65536, "ssh", ""]),
    "k3s_firewall_allow": (
        "",
        [[], [{"proto": "tcp", "port": 443, "sources": ["192.0.2.0/24"]}]],
        ["tcp/443", {"proto": "tcp"}, ["443"]],
    ),
    "k3s_host_banner": (
        "text of 20 to 2000 characters",
        ["x" * 20, "x" * 9 + "\n" + "x" * 9 + "y"],
        ["", "x", "x" * 2001],
    ),
    "k3s_host_journal_max_use_mib": ("a whole number from 256 to 65536", [256, 65536], [255, 65537, "1G"]),
    "k3s_host_password_min_length": ("a whole number from 8 to 64", [8, 64], [7, 65, ""]),
    "k3s_host_lockout_failures": ("a whole number from 1 to 20", [1, 20], [0, 21, "few"]),
    "k3s_host_lockout_seconds": ("a whole number from 60 to 86400", [60, 86400], [59, 86401, "15m"]),
    "k3s_host_password_history": ("a whole number from 1 to 400", [1, 400], [0, 401, "all"]),
    "k3s_host_su_group": ("the name of a group", ["sudo", "root"], ["", "a b", 0, "Root", "a=b"]),
    "k3s_host_password_max_days": ("a whole number from 1 to 9999", [1, 9999], [0, 10000, "never"]),
    "k3s_host_password_min_days": ("a whole number from 0 to 365", [0, 365], [-1, 366, "none"]),
    "k3s_host_password_warn_days": ("a whole number from 1 to 365", [1, 365], [0, 366, "none"]),
    "k3s_host_password_inactive_days": ("a whole number from 0 to 9999", [0, 9999], [-1, 10000, "never"]),
    "k3s_host_ageless_accounts": ("the name of an account", [[], NAMES], ["backup", *([n] for n in NO_NAMES)]),
    "k3s_host_shell_idle_seconds": ("a whole number from 60 to 86400", [60, 86400], [59, 86401, "never"]),
    "k3s_host_update_origins": (
        "fields such as origin=Docker,label=Docker CE",
        [[], ["origin=Docker,label=Docker CE", "origin=Debian,codename=${distro_codename}-updates"]],
        ["origin=Docker", ["Docker"], ['origin="x"'], ["origin=a;b"], [1]],
    ),
    "k3s_host_security_tracker": (
        "the absolute path of a file on the hosts, or nothing",
        ["", "/var/lib/tracker.json"],
        ["tracker.json", "/var/lib/", 1],
    ),
    "k3s_host_kernel_arguments": (
        "an argument of the kernel without spaces and quotes",
        [[], ["init_on_alloc=1", "slab_nomerge", "mitigations=auto,nosmt"]],
        ["slab_nomerge", ["a b"], ['x="y"'], ["x=$(y)"], [""]],
    ),
    "casemate_people": (
        "a mapping with name (the name of an account (letters",
        [[], [{"name": "john.doe", "keys": ["ssh-ed25519 AAAA"]}], [{"name": "carol", "state": "revoked"}]],
        ["alice", [[]], [1], {"name": "alice"}],
    ),
    "k3s_host_umask": ('one of "027" (with the quotes), "077" (with the quotes)', ["077"], [23, "022", ""]),
    "k3s_host_system_shell_accounts": (
        "the name of an account",
        [["backup"], NAMES],
        ["backup", *([n] for n in NO_NAMES)],
    ),
    "k3s_host_package_index_max_age_seconds": ("a whole number from 0 to 604800", [0, 604800], [-1, 604801, "1d"]),
    "k3s_node_ip": (
        "an IPv4 or IPv6 address, or one of each with a comma",
        ["192.0.2.7", "2001:db8::7", "192.0.2.7,2001:db8::7", "2001:db8::7,192.0.2.7"],
        [
            "node1",
            "192.0.2.0/24",
            "",
            "1.2.3.256",
            "192.0.2.7,",
            "192.0.2.7, 2001:db8::7",
            "192.0.2.7,192.0.2.8",
            "192.0.2.7,2001:db8::7,2001:db8::8",
            "192.0.2.7,node1",
            "192.0.2.7,2001:db8::/64",
        ],
    ),
    "k3s_node_config": (
        "",
        [{}, {"node-label": ["a=b"], "with-node-id": True}],
        ["a", [], {"a": {"b": 1}}, {"a": None}],
    ),
    "k3s_node_kubelet_args": ("a flag without leading dashes", [["v=2"]], ["v=2", ["--v=2"], [""], [None]]),
    "k3s_node_pod_max_pids": ("a whole number from 64 to 16384", [64, 16384], [63, 16385, "many"]),
    "k3s_node_resolv_conf": (
        "auto, or the absolute path of a file on the node",
        ["/etc/resolv.conf", "auto"],
        ["resolv.conf", "", "/a b", "automatic"],
    ),
    "k3s_node_streaming_idle_timeout": (
        "a duration such as 5m or 1h30m, and not 0",
        ["5m", "1h30m", "5m0s"],
        ["", "0s", "0", "5", "5 minutes", "-5m"],
    ),
    "k3s_node_unit_limit_nofile": ("a whole number from 1024 to 1048576", [1024, 1048576], [1023, 1048577, "max"]),
    "k3s_node_containerd_dropins": (
        "",
        [{"lab": "version = 3"}],
        ["version = 3", {"lab": "="}, {"a b": ""}, {"a": None}],
    ),
    "k3s_node_version_floor": ("a K3s version such as v1.36.4+k3s1", ["v1.36.4+k3s1"], ["1.36", 1.36, "", "v1.36.4"]),
    "k3s_node_allow_downgrade": ("true or false", [True, "no"], ["maybe", "", 1, []]),
    "k3s_node_ready_timeout": ("a whole number from 60 to 3600", [60, 3600], [59, 3601, "10m"]),
}
"""Every public input: what is allowed in words, right values, wrong ones. No value at all is wrong for each."""
KNOWN = preflight.known_inputs()


def test_the_table_has_every_public_input() -> None:
    assert set(INPUTS) == set(KNOWN)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, row in INPUTS.items() for value in row[1]])
def test_what_is_allowed_passes(name: str, value: Any) -> None:
    assert preflight.input_problems({**RIGHT, name: value}, KNOWN) == []


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, row in INPUTS.items() for value in [None, *row[2]]]
)
def test_each_input_is_refused_with_its_name_its_value_what_is_allowed_and_what_to_do(name: str, value: Any) -> None:
    (problem,) = preflight.input_problems({**RIGHT, name: value}, KNOWN)
    assert re.match(rf"{name}(\[0\])?(\.\w+| has the name)? (is )?", problem)
    part = value[0] if isinstance(value, list) and "[0]" in problem else value
    shown = json.dumps(part) if part is None or isinstance(part, bool) else repr(part)
    assert shown in problem or f"{shown:.117}..." in problem or isinstance(value, dict) or "(not shown)" in problem
    assert f"allowed: {INPUTS[name][0]}" in problem or "allowed: a list" in problem
    assert INPUTS[name][0] in problem
    assert "Correct it in the inventory" in problem


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("casemate_levle", "strict", "casemate_levle is not a variable of Casemate (did you mean casemate_level?)"),
        ("k3s_access_gard_seconds", 60, "(did you mean k3s_access_guard_seconds?). Correct or remove it"),
        ("k3s_nowhere_token", "canary", "k3s_nowhere_token is not a variable of Casemate"),
        ("k3s_control_plane_disable", ["treafik"], "(did you mean traefik?)"),
        ("k3s_node_containerd_dropins", {"a b": ""}, "has the name a b; allowed: letters, digits, dots, dashes."),
        (
            "k3s_node_containerd_dropins",
            {"lab": "="},
            "k3s_node_containerd_dropins.lab is text (not shown); allowed: text in TOML.",
        ),
        (
            "k3s_node_config",
            {"a": {"b": "canary"}},
            "k3s_node_config.a is a mapping (not shown); allowed: text, a number",
        ),
        ("k3s_firewall_allow", [{"prot": "tcp"}], "k3s_firewall_allow[0].prot is not known (did you mean proto?)"),
        ("k3s_firewall_allow", [{"proto": "icmp"}], "[0].proto is 'icmp'; allowed: one of tcp, udp."),
        ("k3s_firewall_allow", [{"port": "0"}], "[0].port is '0'; allowed: a port from 1 to 65535, or the first and"),
        ("k3s_firewall_allow", [{"port": "2000-1000"}], "[0].port is '2000-1000'; allowed: a port"),
        ("k3s_firewall_allow", [{"port": "http"}], "[0].port is 'http'; allowed: a port"),
        (
            "k3s_firewall_allow",
            [{"sources": []}],
            "[0].sources is []; allowed: a list of 1 or more items, each item an",
        ),
        ("k3s_firewall_allow", [{"sources": ["all"]}], "[0].sources[0] is 'all'; allowed: an address or a network"),
        (
            "k3s_firewall_allow",
            [{}],
            "[0].sources is missing; allowed: a list of 1 or more items, each item an address",
        ),
        ("casemate_vouched", {"tool": VOUCHED}, "has the name tool; allowed: the absolute path of a file"),
        ("casemate_vouched", {"tcp/http": VOUCHED}, "has the name tcp/http; allowed: the absolute path of a file"),
        ("casemate_vouched", {"Secret/": VOUCHED}, "has the name Secret/; allowed: the absolute path of a file"),
        ("casemate_vouched", {TOOL: {**VOUCHED, "digest": "abc"}}, "is 'abc'; allowed: sha256 and its 64 digits"),
        ("casemate_vouched", {TOOL: WAIVER}, "digest is missing"),
        ("casemate_advisory_waivers", {"runc": WAIVER}, "has the name runc; allowed: the id of an advisory"),
        ("casemate_advisory_waivers", {"GO-2026-1": {"owner": "ops", "reason": " "}}, "expires is missing"),
        ("casemate_waivers", {"SSH-ROOT-REFUSD": WAIVER}, "has the name SSH-ROOT-REFUSD; allowed: the id of a control"),
        ("casemate_waivers", {"SSH-ROOT-REFUSD": WAIVER}, "(did you mean SSH-ROOT-REFUSED?). Correct it"),
        ("casemate_waivers", {ID: "because"}, "is 'because'; allowed: a mapping with reason (why it is"),
        ("casemate_waivers", {ID: {"reason": "x"}}, "SSH-ROOT-REFUSED.expires is missing; allowed: a date"),
        ("casemate_waivers", {ID: {**WAIVER, "until": 1}}, "until is not known; allowed: reason, owner,"),
        ("casemate_waivers", {ID: {**WAIVER, "owner": " "}}, "owner is ' '; allowed: who answers for it."),
        ("casemate_waivers", {ID: {**WAIVER, "reason": None}}, "reason is null; allowed: why it is waived"),
        ("casemate_waivers", {ID: {**WAIVER, "expires": "soon"}}, "is 'soon'; allowed: a date as YYYY-MM-DD"),
        ("casemate_waivers", {ID: {**WAIVER, "expires": "20990131"}}, "allowed: a date as YYYY-MM-DD"),
        ("casemate_waivers", {ID: {**WAIVER, "expires": "2099-02-30"}}, "allowed: a date as YYYY-MM-DD"),
    ],
)
def test_what_lies_deeper_is_named_too(name: str, value: Any, says: str) -> None:
    found = preflight.input_problems({**RIGHT, name: value}, KNOWN)
    assert any(says in problem for problem in found), found
    assert all(name in problem for problem in found)
    assert "canary" not in str(found)


def test_constraints_of_roles_are_applied(tmp_path: Path) -> None:
    role = tmp_path / "roles/k3s_x"
    for folder in ("meta", "vars/main"):
        (role / folder).mkdir(parents=True)
    options = {"k3s_x_days": {"type": "int"}, "k3s_x_mode": {"type": "str"}}
    (role / "meta/argument_specs.yml").write_text(json.dumps({"argument_specs": {"main": {"options": options}}}))
    constraints = {"k3s_x_days": {"min": 2}, "k3s_x_mode": {"choices": ["a"]}}
    (role / "vars/main/constraints.yml").write_text(json.dumps({"__k3s_x_constraints": constraints}))
    known = preflight.known_inputs(tmp_path)
    assert len(preflight.input_problems({**RIGHT, "k3s_x_days": 1, "k3s_x_mode": "b"}, known)) == 2
    assert preflight.input_problems({**RIGHT, "k3s_x_days": 2, "k3s_x_mode": "a"}, known) == []


@pytest.mark.parametrize(
    ("dropins", "says"),
    [
        ({"lab": "version = 3\n[x]\na = 1\n", "more": "[x]\nb = 1\n"}, []),
        ({}, []),
        (
            {"lab": "[x]\na = 'CANARY'\n", "more": "[x]\na = 'CANARY-2'\n"},
            ["k3s_node_containerd_dropins: lab and more differ in x.a; allowed: one value."],
        ),
    ],
)
def test_settings_of_containerd_are_judged_as_the_one_file_that_they_make(
    dropins: dict[str, str], says: list[str]
) -> None:
    assert combinations.dropin_problems({"k3s_node_containerd_dropins": dropins}) == [
        f"{one} Correct it in the inventory" for one in says
    ]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, ""),
        ({"casemate_admin_sources": ["192.0.2.0/24"]}, ""),
        ({"k3s_host_password_min_days": 30, "k3s_host_password_max_days": 30}, "could not be changed before it ends"),
        ({"k3s_host_password_min_days": 30}, ""),
        ({"casemate_admin_sources": ["0.0.0.0/0"]}, "which is everybody"),
        ({"casemate_admin_sources": ["::/0"]}, "which is everybody"),
        ({"casemate_cluster_cidr": "10.0.0.0/8", "casemate_service_cidr": "10.43.0.0/16"}, "overlap"),
        ({"casemate_admin_sources": ["0.0.0.0/1", "128.0.0.0/1"]}, "which is everybody"),
        ({"casemate_admin_sources": ["192.0.2.0/24", "192.0.2.1/32"]}, ""),
        ({"casemate_cluster_cidr": "10.43.0.0/20"}, "overlap"),  # K3s' own network of services
        ({"casemate_cluster_cidr": "10.50.0.0/16,fd00::/56", "casemate_service_cidr": "fd00::/112"}, "overlap"),
        ({"casemate_cluster_cidr": "10.42.0.0/16", "casemate_service_cidr": "10.43.0.0/16"}, ""),
    ],
)
def test_rules_between_values(values: dict[str, Any], says: str) -> None:
    found = combinations.rule_problems(values)
    assert len(found) == bool(says)
    assert not says or says in found[0]


@pytest.mark.parametrize(
    ("config", "node", "says"),
    [
        ({}, "server", ""),
        ({"flannel-iface": "eth1", "node-label": ["a=b"], "disable-helm-controller": True}, "server", ""),
        ({"flannel-iface": "eth1"}, "agent", ""),
        ({"flanel-iface": "x"}, "agent", "flanel-iface is no key of K3s agents; did you mean flannel-iface. Correct"),
        ({"secrets-encription": "x"}, "server", "did you mean secrets-encryption. Correct or remove it"),
        ({"disable-helm-controller": True}, "agent", "disable-helm-controller is no key of K3s agents"),
        ({"token": "canary"}, "server", "k3s_node_config.token is a secret"),
        ({"etcd-s3-proxy": "http://u:canary@192.0.2.1:3128"}, "server", "holds an address with a password"),
        ({"etcd-s3-proxy": "http://192.0.2.1:3128/a@b"}, "server", ""),
        ({"node-label": ["a=http://:canary@x"]}, "server", "k3s_node_config.node-label holds an address"),
        ({"vpn-auth": "canary"}, "agent", "k3s_node_config.vpn-auth is a secret"),
        ({"etcd-s3-secret-key": "canary"}, "server", "name a file (vpn-auth-file) or, for S3"),
        ({"node-ip": "192.0.2.1"}, "agent", "Remove it; set k3s_node_ip instead"),
        ({"kubelet-arg": ["v=2"]}, "agent", "Remove it; set k3s_node_kubelet_args instead"),
        ({"resolv-conf": "/x"}, "agent", "Remove it; set k3s_node_resolv_conf instead"),
        ({"kube-apiserver-arg": ["v=2"]}, "server", "Remove it; set k3s_control_plane_apiserver_args instead"),
        ({"secrets-encryption": False}, "server", "Remove it; see `casemate explain ETCD-SECRETS-ENCRYPTED`"),
        ({"cluster-cidr": "10.50.0.0/16"}, "server", "Remove it; set casemate_cluster_cidr instead"),
        ({"service-cidr": "10.50.0.0/16"}, "server", "Remove it; set casemate_service_cidr instead"),
        (
            {"data-dir": "/x"},
            "agent",
            "data-dir is what Casemate decides itself. Remove it; everything that is protected",
        ),
        ({"cluster-reset": True}, "server", "Remove it; reset a cluster once, by hand"),
        ({"cluster-reset-restore-path": "/x"}, "server", "Remove it; restore a snapshot once, by hand"),
        ({"cluster-init": True}, "server", "Remove it; the first host of k3s_server starts the cluster"),
        ({"server": "https://canary:6443"}, "agent", "Remove it; every other node joins the first host of k3s_server"),
        ({"token-file": "/x"}, "agent", "Remove it; the first server makes the token"),
        ({"agent-token-file": "/x"}, "server", "Remove it; Casemate makes the token in /etc/rancher/k3s/agent-token"),
        ({"with-node-id": True}, "agent", "with-node-id is what Casemate decides itself. Remove it; the node"),
        ({"https-listen-port": 7443}, "server", "is asked for, and let through the firewall, at port 6443; forward"),
        ({"apiserver-port": 7443}, "server", "port 6443"),
        ({"supervisor-port": 9345}, "server", "port 6443"),
        ({"apiserver-bind-address": "192.0.2.1"}, "server", "K3s itself asks its API server at 127.0.0.1"),
        ({"bind-address": "192.0.2.1"}, "server", ""),  # K3s listens on loopback, too
        ({"bind-address": "192.0.2.1"}, "agent", ""),
        ({"disable-agent": True}, "server", "every server is a node, too; keep workloads off it by node-taint"),
        ({"disable-apiserver": True}, "server", "every server runs all of the control plane"),
        ({"disable-controller-manager": True}, "server", "every server runs all of the control plane"),
        ({"disable-scheduler": True}, "server", "every server runs all of the control plane"),
        ({"disable-etcd": True}, "server", "every server runs all of the control plane"),
        ({"datastore-endpoint": "canary"}, "server", "etcd on the servers holds the data"),
        ({"docker": True}, "agent", "K3s' own containerd is what is protected"),
        ({"container-runtime-endpoint": "unix:///x"}, "server", "K3s' own containerd is what is protected"),
        ({"rootless": True}, "server", "K3s is a service of root"),
        ({"log": "/var/log/k3s.log"}, "server", "journal"),
        ({"write-kubeconfig": "/root/.kube/config"}, "server", "copy /etc/rancher/k3s/k3s.yaml"),
        # What changes nothing that Casemate relies on, or works once somebody has prepared it, is theirs to decide.
        ({"node-name": "a", "node-taint": ["a=b:NoSchedule"], "lb-server-port": 7444}, "agent", ""),
        ({"advertise-address": "192.0.2.9", "advertise-port": 443}, "server", ""),
        ({"disable-cloud-controller": True, "disable-kube-proxy": True, "flannel-backend": "none"}, "server", ""),
        ({"selinux": True, "snapshotter": "native", "image-service-endpoint": "unix:///x"}, "agent", ""),
        ({"disable-network-policy": True}, "server", "see `casemate explain CLUSTER-POLICIES-ENFORCED`"),
        ({"enable-pprof": True}, "agent", "see `casemate explain NODE-PPROF-OFF`"),
        ({"supervisor-metrics": True}, "server", "see `casemate explain API-SUPERVISOR-METRICS-OFF`"),
    ],
)
def test_keys_of_k3s_are_known_before_any_host_is_touched(config: dict[str, Any], node: str, says: str) -> None:
    found = combinations.option_problems({"k3s_node_config": config}, node, "v1.36.4+k3s1")
    assert len(found) == bool(says), found
    assert not says or (says in found[0] and "k3s_node_config" in found[0])
    assert "canary" not in str(found)


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        ({"casemate_service_cidr": "10.50.0.0/16"}, 0),
        ({"casemate_waivers": {"ETCD-SECRETS-ENCRYPTED": {}}, "k3s_node_config": {"secrets-encryption": False}}, 0),
        (
            {
                "casemate_waivers": {"CLUSTER-POLICIES-ENFORCED": {}},
                "k3s_node_config": {"disable-network-policy": True},
            },
            0,
        ),
        ({"casemate_waivers": {"NODE-RESOLVER-DECLARED": {}}, "k3s_node_config": {"resolv-conf": "/x"}}, 1),
        ({"k3s_node_kubelet_args": ["root-dir=/srv/kubelet", "v=2"], "k3s_node_config": {"node-name": "a"}}, 0),
        ({"k3s_node_kubelet_args": ["hostname-override=a"]}, 1),
    ],
)
def test_keys_of_k3s_agree_with_the_other_inputs(values: dict[str, Any], problems: int) -> None:
    assert len(combinations.option_problems(values, "server", "v1.36.4+k3s1")) == problems


def test_a_node_is_named_where_its_credentials_are_made() -> None:
    values = {"k3s_node_kubelet_args": ["v=2", "hostname-override=canary"]}
    (problem,) = combinations.option_problems(values, "agent", "v1.36.4+k3s1")
    assert problem.startswith("k3s_node_kubelet_args has hostname-override, but ")
    assert "Remove it; set node-name in k3s_node_config instead" in problem
    assert "canary" not in problem


def test_a_k3s_whose_keys_nobody_knows_is_refused() -> None:
    (problem,) = combinations.option_problems({}, "agent", "v1.99.0+k3s1")
    assert "the keys of K3s v1.99.0+k3s1 are not known" in problem


def test_controls_are_found_where_they_are_declared() -> None:
    declared = preflight.known_controls()
    assert declared
    assert all(identifier.count("-") >= 1 for identifier in declared)


NODES = {"a": ("192.0.2.1", "192.0.2.1:22"), "b": ("192.0.2.2", "192.0.2.2:22")}


@pytest.mark.parametrize(
    ("groups", "nodes", "says"),
    [
        ({"k3s_server": ["a"], "k3s_agent": ["b"]}, {}, ""),
        ({"k3s_server": ["a", "b", "c"]}, {}, ""),
        ({"k3s_agent": ["a"]}, {}, "the inventory has no server. Put at least one host into the group k3s_server"),
        ({}, {}, "no server"),
        ({"k3s_server": ["a"], "k3s_agent": ["a"]}, {}, "a is in both k3s_server and k3s_agent"),
        (
            {"k3s_server": ["a"]}, {"b": ("192.0.2.1", "192.0.2.2:22")},
            "a and b have the same k3s_node_ip, or else ansible_host, 192.0.2.1. Give each node an address of its own",
        ),
        (
            {"k3s_server": ["a"]}, {"b": ("192.0.2.2", "192.0.2.1:22")},
            "a and b have the same ansible_host and port 192.0.2.1:22",
        ),
        ({"k3s_server": ["a"]}, {"b": ("192.0.2.2", "192.0.2.1:2222")}, ""),  # one address, ports forwarded
        (
            {"k3s_server": ["a"]}, {"b": ("2001:db8::2,192.0.2.1", "192.0.2.2:22")},
            "a and b have the same k3s_node_ip, or else ansible_host, 192.0.2.1",
        ),
        (
            {"k3s_server": ["a"]},
            {"b": ("192.0.2.2,2001:db8::2", "192.0.2.2:22"), "c": ("192.0.2.3,2001:db8:0::2", "192.0.2.3:22")},
            "b and c have the same k3s_node_ip, or else ansible_host, 2001:db8::2",
        ),
        ({"k3s_server": ["a"]}, {"b": ("192.0.2.2,b.example", "x:22")}, "b has no address but the name"),
        ({"k3s_server": ["a"]}, {"b": ("192.0.2.2,2001:db8::2", "x:22")}, ""),
        ({"k3s_server": ["a"]}, {"b": ("b.example", "x:22")}, "b has no address but the name b.example. Set"),
    ],
)  # fmt: skip
def test_inventories(groups: dict[str, list[str]], nodes: dict[str, tuple[str, str]], says: str) -> None:
    found, warnings = combinations.inventory_problems(groups, {**NODES, **nodes})
    assert warnings == []
    assert len(found) == bool(says)
    assert not says or says in found[0]


def test_an_even_number_of_servers_is_accepted_with_a_warning() -> None:
    found, warnings = combinations.inventory_problems({"k3s_server": ["a", "b"]}, NODES)
    assert found == []
    assert "2 servers survive the loss of no more of them than 1 would" in warnings[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"os": "debian 13"}, ""),
        ({"source": ""}, ""),
        ({"source": "::ffff:198.18.0.9"}, ""),
        ({"source": "2001:db8::7%eth0"}, ""),
        ({"source": "203.0.113.9"}, ""),
        ({"data": "200", "installed": "yes"}, ""),
        ({"uid": "1000"}, "NOPASSWD sudo"),
        ({"os": "debian 11"}, "debian 11 is not supported; supported: Debian 12 and 13"),
        ({"os": "ubuntu 20.04"}, "not supported"),
        ({"os": "rocky 9.4"}, "not supported"),
        ({"machine": "riscv64"}, "riscv64 is not supported"),
        ({"python": "3.8"}, "Python is 3.8; 3.9 or newer"),
        ({"python": ""}, "Python is missing"),
        ({"data": "1023"}, "/var/lib/rancher has 1023 MiB free; 1024 MiB are needed"),
        ({"data": "199", "installed": "yes"}, "200 MiB are needed"),
        ({"data": ""}, "/var/lib/rancher has ? MiB free"),
        ({"etc": "0"}, "/etc has 0 MiB free"),
        ({"binary": "99"}, "/usr/local/bin has 99 MiB free; 100 MiB are needed: free or add disk space"),
        ({"state": "15", "installed": "yes"}, "/var/lib/casemate has 15 MiB free"),
        ({"home": "299"}, "the home of the login account has 299 MiB free; 300 MiB are needed: free or add disk space"),
        ({"writable": ""}, "/etc cannot be written"),
        ({"source": "198.18.1.1"}, "does not contain 198.18.1.1, where this controller comes from"),
    ],
)
def test_hosts(change: dict[str, str], says: str) -> None:
    problems, warnings = host_facts.host_problems({**HOST, **change}, RIGHT["casemate_admin_sources"], 300)
    assert warnings == []
    assert len(problems) == bool(says)
    assert not says or says in problems[0]


OPEN = {"proto": "tcp", "port": "2200-2299", "sources": ["198.18.0.0/24"]}


@pytest.mark.parametrize(
    ("came", "connected", "values", "waived", "says"),
    [
        ("22", 22, {}, [], ""),
        ("", 22, {}, [], ""),
        ("2222", "2222", {}, [], ""),
        ("2222", 22, {"k3s_firewall_ssh_port": "2222"}, [], ""),
        ("22", 2222, {"k3s_firewall_ssh_port": 22}, [], ""),
        ("2222", 22, {"k3s_firewall_allow": [OPEN]}, [], ""),
        ("2222", 22, {}, ["FW-RULES-LOADED"], ""),
        # By Port of ssh's own configuration, or a port that is forwarded on the way.
        (
            "2222",
            22,
            {},
            [],
            "k3s_firewall_ssh_port is 22 (ansible_port, or 22), and this controller comes in at port 2222",
        ),
        ("22", 2222, {}, [], "allowed: 22. Set k3s_firewall_ssh_port: 22 for this host"),
        ("2222", 2222, {"k3s_firewall_ssh_port": 22}, [], "k3s_firewall_ssh_port is 22, and"),
        ("2222", 22, {"k3s_firewall_allow": [{**OPEN, "proto": "udp"}]}, [], "the firewall would lock it out"),
        ("2222", 22, {"k3s_firewall_allow": [{**OPEN, "port": 2223}]}, [], "the firewall would lock it out"),
        ("2222", 22, {"k3s_firewall_allow": [{**OPEN, "sources": ["192.0.2.0/24"]}]}, [], "would lock it out"),
    ],
)
def test_the_port_by_which_one_comes_in_stays_open(
    came: str, connected: Any, values: dict[str, Any], waived: list[str], says: str
) -> None:
    found = host_facts.port_problems({**HOST, "port": came}, values, connected, waived)
    assert len(found) == bool(says)
    assert not says or says in found[0]


def test_a_home_needs_no_room_where_nothing_is_brought_through_it() -> None:
    assert host_facts.host_problems({**HOST, "home": "0"}, RIGHT["casemate_admin_sources"], 0) == ([], [])


@pytest.mark.parametrize(
    ("login", "automation", "allowed", "root", "says"),
    [
        ("ops", "ops", [], False, ""),
        ("deploy", "ops", ["deploy"], False, ""),
        ("deploy", "ops", [], False, "Ansible comes as deploy, but only ops would stay admitted"),
        ("deploy", "", [], False, "only nobody would stay admitted"),
        ("root", "root", [], False, "SSH-ROOT-REFUSED"),
        ("ops", "root", [], False, "SSH-ROOT-REFUSED"),
        ("root", "root", [], True, ""),
        ("", "ops", [], False, ""),
    ],
)
def test_the_account_that_ansible_comes_as_stays_admitted(
    login: str, automation: str, allowed: list[str], root: bool, says: str
) -> None:
    found = host_facts.login_problems(login, automation, allowed, root)
    assert len(found) == bool(says)
    assert not says or says in found[0]


@pytest.mark.parametrize("version", ["22.04", "24.04"])
def test_ubuntu_is_accepted_with_a_warning(version: str) -> None:
    problems, warnings = host_facts.host_problems({**HOST, "os": f"ubuntu {version}"}, ["198.18.0.0/24"], 0)
    assert problems == []
    assert "untested" in warnings[0]


def test_the_probe_answers_on_this_machine_and_finds_the_controller_among_the_parents() -> None:
    script = host_facts.script(sys.executable)
    environment = {**os.environ, "SSH_CONNECTION": "198.51.100.7 4711 198.51.100.8 22"}
    # As sudo does: the probe's own environment is without it, its parent's has it.
    command = ["sh", "-c", 'env -u SSH_CONNECTION sh -c "$1"; true', "parent", script]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    seen = host_facts.parse(f"Welcome! casemate:uid=9\n{said}")
    assert (seen["source"], seen["port"]) == ("198.51.100.7", "22")
    assert seen["uid"] == str(os.getuid())
    assert seen["python"] == "{}.{}".format(*sys.version_info)
    assert all(int(seen[key]) >= 0 for key in host_facts.SPACE)
    assert set(host_facts.INSTALLED) <= set(seen)
    assert seen["machine"] == os.uname().machine


@pytest.mark.parametrize(
    ("asked", "tried"), [("/opt/python", "for p in /opt/python; do"), ("auto_silent", "python3.9 ")]
)
def test_the_probe_asks_the_interpreter_that_ansible_will_use(asked: str, tried: str) -> None:
    assert tried in host_facts.script(asked)


IMAGES = "k3s-airgap-images-amd64.tar.zst"


def locked(folder: Path, **there: bytes) -> dict[str, Any]:
    """A lock of one release, and a release folder; `there` are files in it that are not as the lock demands."""
    files = {name: name.encode() for name in ("k3s", "k3s-arm64", IMAGES)}
    (folder / "release").mkdir()
    for name, data in {**files, **there}.items():
        (folder / "release" / name).write_bytes(data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    lock = {"schema": 1, "default": "v1.36.4+k3s1", "releases": {"v1.36.4+k3s1": {"provides": [], "files": digests}}}
    (folder / "lock.json").write_text(json.dumps(lock))
    return {"casemate_artifact_lock": str(folder / "lock.json"), "casemate_artifact_dir": str(folder / "release")}


def test_a_folder_that_fits_the_lock_passes(tmp_path: Path) -> None:
    values = locked(tmp_path)
    assert host_facts.lock_problems(values) == host_facts.folder_problems(values, "x86_64") == []
    assert host_facts.lock_problems({}) == host_facts.folder_problems({}, "x86_64") == []


@pytest.mark.parametrize("name", ["k3s", IMAGES])
def test_one_flipped_byte_of_any_file_that_is_brought_is_refused(tmp_path: Path, name: str) -> None:
    values = locked(tmp_path, **{name: b"flipped"})
    (problem,) = host_facts.folder_problems(values, "x86_64")
    assert str(tmp_path / "release" / name) in problem
    assert hashlib.sha256(b"flipped").hexdigest() in problem
    assert f"the lock demands {hashlib.sha256(name.encode()).hexdigest()}: fetch it again" in problem
    assert host_facts.folder_problems(values, "aarch64") == []  # of another type, so none of it is brought there


def test_all_files_that_do_not_fit_are_named_at_once(tmp_path: Path) -> None:
    assert len(host_facts.folder_problems(locked(tmp_path, **{"k3s": b"x", IMAGES: b"x"}), "x86_64")) == 2


def test_a_folder_needs_the_binary_and_may_have_images(tmp_path: Path) -> None:
    values = locked(tmp_path)
    (tmp_path / "release" / IMAGES).unlink()
    assert host_facts.folder_problems(values, "x86_64") == []
    (tmp_path / "release/k3s").unlink()
    (problem,) = host_facts.folder_problems(values, "x86_64")
    assert "has no k3s: copy it from the release v1.36.4+k3s1" in problem


def test_a_file_is_hashed_once_for_a_host(tmp_path: Path, monkeypatch: Any) -> None:
    hashed, real = [], hashlib.file_digest

    def digest(file: Any, name: str) -> Any:
        hashed.append(Path(file.name).name)
        return real(file, name)

    values = locked(tmp_path)
    monkeypatch.setattr(hashlib, "file_digest", digest)
    problems = host_facts.lock_problems(values) + host_facts.folder_problems(values, "x86_64")
    assert (problems, hashed) == ([], ["k3s", IMAGES])


@pytest.mark.parametrize(
    ("seen", "room"),
    [
        ({}, 67),  # fresh: the larger of both, and a margin
        ({"k3s": "1048576"}, 67),
        ({"k3s": "1048576", "images": "3145728"}, 0),
        ({"k3s": "1048575", "images": "3145728"}, 65),
        ({"machine": "riscv64"}, 0),  # refused for that
    ],
)
def test_the_home_has_room_for_the_largest_file_that_is_brought_through_it(
    tmp_path: Path, seen: dict[str, str], room: int
) -> None:
    values = locked(tmp_path, **{"k3s": b"x" * 2**20, IMAGES: b"x" * 3 * 2**20})
    assert host_facts.room(values, {"machine": "x86_64", **seen}) == room
    assert host_facts.room({}, {"machine": "x86_64", **seen}) == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"casemate_k3s_version": "v1.30.0+k3s1"}, "not in the lock; it holds v1.36.4+k3s1"),
        ({"casemate_artifact_lock": "/nowhere/lock.json"}, "cannot be read"),
        ({"casemate_allowed_signers": "/dev/null"}, "sign the lock"),
    ],
)
def test_locks_that_cannot_be_trusted_are_refused(tmp_path: Path, change: dict[str, str], says: str) -> None:
    (problem,) = host_facts.lock_problems({**locked(tmp_path), **change})
    assert says in problem


KEYS = [f"{name}@x ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{name.upper()}{'A' * 42}" for name in "ab"]


@pytest.mark.parametrize(
    ("signers", "says"),
    [
        (None, "is 3, and casemate_allowed_signers is not set, so nobody may sign. Set that"),
        ("", "lists 0 who may sign the lock (nobody)"),
        (KEYS, "is 3, and casemate_allowed_signers {} lists 2 who may sign the lock (a@x, b@x)"),
    ],
)
def test_a_threshold_that_nobody_could_reach_is_refused(tmp_path: Path, signers: Any, says: str) -> None:
    values = {**locked(tmp_path), "casemate_lock_threshold": 3}
    if signers is not None:
        (tmp_path / "signers").write_text("\n".join(signers))
        values["casemate_allowed_signers"] = str(tmp_path / "signers")
    (problem,) = host_facts.lock_problems(values)
    assert "casemate_lock_threshold" in problem
    assert says.format(tmp_path / "signers") in problem


def test_a_lock_with_too_few_signers_is_refused(tmp_path: Path) -> None:
    values = {**locked(tmp_path), "casemate_lock_threshold": 2, "casemate_allowed_signers": str(tmp_path / "signers")}
    (tmp_path / "signers").write_text("\n".join(KEYS))
    (problem,) = host_facts.lock_problems(values)
    assert "needs 2 signers (casemate_lock_threshold) and has 0 of 2; missing: a@x, b@x" in problem
    assert "Review and sign the lock" in problem


def dated(folder: Path, **more: Any) -> dict[str, Any]:
    """A lock with more in it than digests."""
    values = locked(folder)
    lock = json.loads((folder / "lock.json").read_text())
    (folder / "lock.json").write_text(json.dumps({**lock, **more}))
    return values


TODAY = datetime.date(2026, 11, 29)
OVER = {"issued": "2026-01-01", "expires": "2026-11-28"}


@pytest.mark.parametrize(
    ("hashed", "says"),
    [
        ({}, "no K3s is installed here"),
        ({"installed": "yes", "k3s_sha256": "0" * 64 + "  -"}, "another K3s is installed here"),
        ({"installed": "yes", "k3s": b"k3s"}, "its images are not here yet"),
        ({"installed": "yes", "k3s": b"k3s", "images": IMAGES.encode()}, ""),
    ],
)
def test_a_lock_that_is_over_installs_nothing_and_keeps_what_is_there(
    tmp_path: Path, hashed: dict[str, Any], says: str
) -> None:
    values = dated(tmp_path, **OVER)
    seen = {"machine": "x86_64"}
    for name, value in hashed.items():
        is_bytes = isinstance(value, bytes)
        seen[f"{name}_sha256" if is_bytes else name] = hashlib.sha256(value).hexdigest() + "  -" if is_bytes else value
    over = host_facts.lock_over(values, TODAY)
    problems = host_facts.over_problems(values, seen, over)
    assert len(problems) == bool(says)
    assert all(says in problem and "ended on 2026-11-28" in problem for problem in problems)
    assert host_facts.over_problems(values, {"machine": "x86_64"}, "") == []


@pytest.mark.parametrize(
    ("expires", "warned"), [("2026-11-28", 0), ("2026-11-29", 1), ("2026-12-29", 1), ("2026-12-30", 0), (None, 0)]
)
def test_a_lock_that_ends_soon_is_told(tmp_path: Path, expires: str | None, warned: int) -> None:
    values = dated(tmp_path, **({"expires": expires} if expires else {}))
    assert len(host_facts.lock_warnings(values, TODAY)) == warned


@pytest.mark.parametrize(
    ("serial", "record", "says"),
    [
        (None, "", ""),
        (7, "", ""),
        (7, '{"serial": 7}', ""),
        (7, '{"serial": 6}', ""),
        (7, '{"serial": 8}', "has the serial 7, and this host accepted one with 8"),
        (None, '{"serial": 8}', "has no serial, and this host accepted one with 8"),
        (7, "7", "is no record of a lock"),
    ],
)
def test_an_older_lock_than_a_host_accepted_is_refused(
    tmp_path: Path, serial: int | None, record: str, says: str
) -> None:
    values = dated(tmp_path, **({"serial": serial} if serial else {}))
    problems = host_facts.accepted_problems(values, record, "server1")
    assert len(problems) == bool(says)
    assert all(problem.startswith("server1: casemate_artifact_lock ") and says in problem for problem in problems)


def test_the_probe_hashes_only_where_it_is_asked_to() -> None:
    assert "sha256sum" not in host_facts.script(sys.executable)
    done = subprocess.run(["sh", "-c", host_facts.script(sys.executable, digests=True)], capture_output=True, text=True)
    seen = host_facts.parse(done.stdout)
    assert {"k3s_sha256", "images_sha256", "accepted"} <= seen.keys()


PLAY = """
- hosts: all
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - casemate_preflight:
    - ansible.builtin.command: touch {mark}
"""


def play(folder: Path, *options: str, **variables: Any) -> tuple[int, str, Path]:
    """Run the action plugin by Ansible against two hosts of one inventory, at -vvv."""
    (folder / "play.yml").write_text(PLAY.format(mark=folder / "touched"))
    good = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **RIGHT}
    hosts = {"good": {"ansible_host": "192.0.2.1"}, "bad": {"ansible_host": "192.0.2.2", **variables}}
    servers = {"hosts": {name: {**good, **own} for name, own in hosts.items()}}
    (folder / "hosts.yml").write_text(json.dumps({"all": {"children": {"k3s_server": servers}}}))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-vvv", "-i", "hosts.yml", *options, "play.yml"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr, folder / "touched"


def test_one_wrong_host_stops_all_of_them_before_the_first_change(tmp_path: Path) -> None:
    wrong = {"casemate_levle": "strict", "k3s_nowhere_token": "canary-1", "casemate_service_cidr": "{{ nothing }}"}
    wrong |= {"k3s_node_ready_timeout": "{{ 1 / 0 }}", "k3s_node_ip": "{{ [] | first }}"}
    wrong |= {"k3s_node_config": "{{ {'token': 'canary-3', 'flanel-iface': 'canary-4'} }}"}
    code, said, mark = play(tmp_path, **wrong, casemate_waivers={"SSH-NO-SUCH": {"reason": "canary-2"}})
    assert code == 2
    assert not mark.exists()
    for message in (
        "casemate_levle is not a variable of Casemate (did you mean casemate_level?)",
        "k3s_nowhere_token is not a variable of Casemate",
        "casemate_service_cidr is '{{ nothing }}', which fails: 'nothing' is undefined; allowed: a network",
        "k3s_node_ready_timeout is '{{ 1 / 0 }}', which fails: ",
        "k3s_node_ip is '{{ [] | first }}', which fails: ",
        "casemate_waivers has the name SSH-NO-SUCH; allowed: the id of a control",
        "casemate_waivers.SSH-NO-SUCH.owner is missing",
        "flanel-iface is no key of K3s servers; did you mean flannel-iface. Correct",
        "k3s_node_config.token is a secret",
    ):
        assert message in said
    assert "canary" not in said


def test_a_required_variable_that_fails_is_not_called_missing(tmp_path: Path) -> None:
    _, said, _ = play(tmp_path, casemate_admin_sources="{{ lookup('file', '/nowhere') }}")
    assert "casemate_admin_sources is " in said
    assert "casemate_admin_sources is missing" not in said


def test_two_nodes_with_one_address_are_refused(tmp_path: Path) -> None:
    code, said, mark = play(tmp_path, k3s_node_ip="192.0.2.1")
    assert code == 2
    assert "good and bad have the same k3s_node_ip" in said
    assert not mark.exists()


def test_a_broken_inventory_beside_a_right_one_is_refused(tmp_path: Path) -> None:
    """Ansible would go on with half of the hosts."""
    (tmp_path / "more.yml").write_text("all:\n  children:\n    k3s_agent:\n   hosts: [\n")
    code, said, mark = play(tmp_path, "-i", "more.yml")
    assert code != 0
    assert "failed to parse inventory source" in said
    assert "more.yml:4:4" in said
    assert not mark.exists()
