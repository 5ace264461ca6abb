#!/usr/bin/python
"""Install a file of a K3s release whose digest the lock names, or refuse and leave everything as it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_artifact
short_description: Install a verified file of a K3s release
description:
  - Streams the file to a temporary one beside its destination, compares size and SHA-256 with what the lock demands,
    and only then renames it into place. Nothing that was fetched is ever executed before that.
  - A file that already has the digest is left alone, without fetching anything.
  - What it replaces is never run either. Its version, which a downgrade is judged by, is read from its bytes.
  - The controller's side brings files from a folder there; see C(files) and C(directory) of the action plugin.
options:
  name:
    description: The file's name in the release, such as C(k3s-arm64).
    type: str
    required: true
  version:
    description: The release, such as C(v1.36.4+k3s1).
    type: str
    required: true
  sha256:
    description: The digest that the verified lock holds for it.
    type: str
    required: true
  dest:
    description: Where to install it.
    type: path
    required: true
  src:
    description: A file on this host, put there from the controller's folder. Without it, the release is downloaded.
    type: path
  mirror:
    description: Base address of a mirror laid out like the official releases. Redirects to another host are refused.
    type: str
  permissions:
    description: Mode of the installed file.
    type: str
    default: "0755"
  previous:
    description: Where to keep the file of another version that is replaced.
    type: path
  allow_downgrade:
    description: Whether an installed K3s that is newer may be replaced.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Tells what would change and changes nothing.}
  diff_mode: {support: full, description: Tells what differs.}
  idempotent: {support: full, description: Changes nothing when run again.}
author: Casemate maintainers (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Artifact | Install K3s
  k3s_artifact:
    name: k3s
    version: v1.36.4+k3s1
    sha256: "{{ digest }}"
    dest: /usr/local/bin/k3s
    previous: /usr/local/bin/k3s.previous
"""

RETURN = r"""
before: {description: Digest of the file that was there., type: str, returned: always}
after: {description: "Digest of the file that is there, or in check mode would be.", type: str, returned: always}
"""

import re

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.casemate.k3s.artifact import (
    ArtifactError,
    at_least,
    digest_of,
    fetch,
    install,
    stated_version,
    url_of,
)


def main() -> None:
    """Translate between Ansible and the installation."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "sha256": {"type": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "src": {"type": "path"},
            "mirror": {"type": "str"},
            "permissions": {"type": "str", "default": "0755"},
            "previous": {"type": "path"},
            "allow_downgrade": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    dest, want, version = given["dest"], given["sha256"], given["version"]
    before = digest_of(dest)
    result = {"before": before, "after": want, "changed": before != want}
    if before == want:
        module.exit_json(**result)
    result["diff"] = {
        "before_header": dest,
        "after_header": dest,
        "before": f"sha256 {before}\n" if before else "",
        "after": f"sha256 {want}\n",
    }
    try:
        if not re.fullmatch("[0-9a-f]{64}", want):
            raise ArtifactError(f"the lock holds no digest for {given['name']} of {version}: nothing is installed")
        present = stated_version(dest) if before else ""
        if present and not given["allow_downgrade"] and not at_least(version, present):
            raise ArtifactError(
                f"{version} is older than the installed {present}: refused. A downgrade can break etcd's data; "
                f"restore a snapshot instead, or set k3s_node_allow_downgrade. If {dest} is not the K3s that you "
                "installed, remove it and apply again"
            )
        if not module.check_mode:
            source = (
                open(given["src"], "rb")  # noqa: SIM115 - closed right below
                if given["src"]
                else fetch(url_of(version, given["name"], given["mirror"] or ""))
            )
            with source:
                # Bytes that claim to be this release and are not are no version to go back to.
                previous = given["previous"] if present not in ("", version) else ""
                install(source, dest, want, int(given["permissions"], 8), previous)
    except (ArtifactError, OSError) as refused:
        module.fail_json(msg=f"{refused}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
