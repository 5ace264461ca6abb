"""Package URLs: what a component is called beyond this project, in bills of materials and in statements about them.

Source: the types of Package URL (https://github.com/package-url/purl-spec).
"""

from __future__ import annotations

from collections.abc import Mapping

from packageurl import PackageURL

from casemate.supply.component import UNKNOWN, Component

PLACES = {"k3s": ("github", "k3s-io", "k3s")}
"""A release -> type, namespace and name of its package URL."""


def purl(one: Component, system: Mapping[str, str]) -> PackageURL | None:
    """The package URL of a component; None for what has none: a file, a kernel, an image without a name."""
    version = None if one.version == UNKNOWN else one.version
    space, _, name = one.name.rpartition("/")
    if one.ecosystem in ("go", "pypi") and name:
        return PackageURL("golang" if one.ecosystem == "go" else "pypi", space or None, name, version)
    if one.ecosystem == "deb" and one.name:
        distribution = system.get("ID") or "debian"
        qualifiers = {"arch": one.architecture, "distro": f"{distribution}-{system.get('VERSION_ID', '')}".rstrip("-")}
        if one.source and (one.source, one.source_version) != (one.name, one.version):
            differs = one.source_version != one.version
            qualifiers["upstream"] = f"{one.source}@{one.source_version}" if differs else one.source
        return PackageURL("deb", distribution, one.name, version, {k: v for k, v in qualifiers.items() if v})
    if one.ecosystem == "image" and one.version.startswith("sha256:") and not name.startswith("sha256:"):
        return PackageURL("oci", None, name, version, {"repository_url": one.name})
    if one.ecosystem == "release" and one.name in PLACES:
        return PackageURL(*PLACES[one.name], version)
    return None
