"""The kinds of setting, listed one by one because AnsiballZ ships only static imports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import (
    account,
    account_lists,
    ageing,
    apparmor_profiles,
    artifact,
    boot,
    cluster_nodes,
    file,
    folder,
    home,
    http,
    journal_args,
    k3s_config,
    k8s_object,
    kernel_module,
    leftover,
    link,
    loose_files,
    membership,
    mount_option,
    new_files,
    nft,
    other_firewalls,
    package,
    pam_line,
    pam_stack,
    patch,
    person,
    port,
    pwquality,
    resolver,
    service,
    sessions,
    sshd,
    stored_secrets,
    sysctl,
    systemd_setting,
    time_sync,
    totp_secrets,
    vouched,
    vouched_entries,
    vouched_objects,
    vouched_rights,
    vouched_state,
)
from .kind import Kind

KINDS: dict[str, Kind[Any]] = {
    "leftover": leftover.KIND,
    "file": file.KIND,
    "new_files": new_files.KIND,
    "kernel_module": kernel_module.KIND,
    "sysctl": sysctl.KIND,
    "package": package.KIND,
    "account": account.KIND,
    "person": person.KIND,
    "sessions": sessions.KIND,
    "folder": folder.KIND,
    "totp_secrets": totp_secrets.KIND,
    "artifact": artifact.KIND,
    "link": link.KIND,
    "k3s_config": k3s_config.KIND,
    "resolver": resolver.KIND,
    "service": service.KIND,
    "sshd": sshd.KIND,
    "nft": nft.KIND,
    "other_firewalls": other_firewalls.KIND,  # after ours, so that no moment is without one
    "mount_option": mount_option.KIND,
    "journal_args": journal_args.KIND,
    "k8s_object": k8s_object.KIND,
    "port": port.KIND,
    "http": http.KIND,
    "membership": membership.KIND,
    "cluster_nodes": cluster_nodes.KIND,
    "stored_secrets": stored_secrets.KIND,
    "pam_stack": pam_stack.KIND,
    "pam_line": pam_line.KIND,
    "ageing": ageing.KIND,
    "systemd_setting": systemd_setting.KIND,
    "pwquality": pwquality.KIND,
    "patch": patch.KIND,
    "boot": boot.KIND,
    "time_sync": time_sync.KIND,
    "apparmor_profiles": apparmor_profiles.KIND,
    "account_lists": account_lists.KIND,
    "home": home.KIND,
    "loose_files": loose_files.KIND,
    "vouched": vouched.KIND,
    "vouched_entries": vouched_entries.KIND,
    "vouched_objects": vouched_objects.KIND,
    "vouched_rights": vouched_rights.KIND,
    "vouched_state": vouched_state.KIND,
}
"""In the order in which they are judged: each one comes after those that explain its faults."""


def written(setting: Mapping[str, Any]) -> str:
    """The file of Casemate's own that a setting is written to, which may still be a template; "" for none."""
    kind = KINDS.get(str(setting["kind"]))
    return kind.owned.written(setting) if kind else ""
