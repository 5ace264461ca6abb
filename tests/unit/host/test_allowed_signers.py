"""Who may sign: lines of a file of allowed signers, and how many people they are."""

from __future__ import annotations

import pytest

from module_utils.casemate.host.allowed_signers import lines, names, signers

ALICE, BOB = "AAAAC3NzaC1lZDI1NTE5AAAAIA" + "A" * 42, "AAAAC3NzaC1lZDI1NTE5AAAAIB" + "A" * 42
CAROL = "AAAAC3NzaC1lZDI1NTE5AAAAIC" + "A" * 42


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ("", []),
        ("# alice@x ssh-ed25519 " + ALICE, []),
        (f"alice@x ssh-ed25519 {ALICE}\nbob@x ssh-ed25519 {BOB} a comment", ["alice@x", "bob@x"]),
        (f'alice@x namespaces="casemate-lock" ssh-ed25519 {ALICE}', ["alice@x"]),
        (f'alice@x NAMESPACES="git,casemate-*",valid-before="20300101" ssh-ed25519 {ALICE}', ["alice@x"]),
        (f'alice@x namespaces="git" ssh-ed25519 {ALICE}', []),
        (f'alice@x namespaces="*,!casemate-lock" ssh-ed25519 {ALICE}', []),
        (f'"alice@x,alice@y" ssh-ed25519 {ALICE}', ["alice@x"]),
        ("alice@x ssh-ed25519", []),
        ("alice@x ssh-ed25519 no-key!", []),
        (f"alice@x sk-ssh-ed25519@openssh.com {ALICE}", ["alice@x"]),
        (f"alice@x ssh-ed25519 {ALICE}\nalice@x ssh-ed25519 {BOB}", ["alice@x"]),  # two keys of one
        (f"alice@x ssh-ed25519 {ALICE}\nbob@x ssh-ed25519 {ALICE}", ["alice@x"]),  # one key of two
        (  # bob's second name is alice's
            f"alice@x ssh-ed25519 {ALICE}\nbob@x ssh-ed25519 {BOB}\nbob@x,alice@x ssh-ed25519 {CAROL}",
            ["alice@x"],
        ),
    ],
)
def test_each_signer_counts_once(text: str, who: list[str]) -> None:
    assert names(lines(text, "casemate-lock")) == who


def test_a_name_and_a_key_lead_to_the_same_signer() -> None:
    known = lines(f"alice@x,alice@y ssh-ed25519 {ALICE}\nbob@x ssh-ed25519 {BOB}", "casemate-lock")
    whose = signers(known)
    assert whose["alice@y"] == whose[known[0].fingerprint] == "alice@x"
    assert whose[known[1].fingerprint] == "bob@x"
