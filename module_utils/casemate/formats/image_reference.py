"""Names of images, as the runtime reads them: which repository of which registry a name leads to.

Source: ParseNormalizedNamed of github.com/distribution/reference, by which containerd reads a name. What that takes and
this does not (a host with capitals, a digest other than sha256) is read as no name at all, so nothing is let through by
it. The policy of admission in roles/k3s_cluster/controls/registries.yml says the same in CEL.
"""

from __future__ import annotations

import re
from typing import Iterable, Match, Optional

HUB, FORMER_HUB, OFFICIAL = "docker.io", "index.docker.io/", "library/"
HOST = r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
PART = r"[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*"
PATH = rf"{PART}(/{PART})*"
TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
REFERENCE = rf"({HOST}/{PATH})(:{TAG})?(@sha256:[0-9a-f]{{64}})?"
LATEST = ":latest"
LOCAL = r"sha256:[^/]*"
"""No name but the digest of a configuration, or its beginning: the runtime takes what it already has, from wherever.

Source: LocalResolve of containerd, internal/cri/server/images/service.go.
"""


def repository(image: str) -> str:
    """Host and path of what a name leads to, such as docker.io/library/nginx; "" for what is no name."""
    found = _parsed(image)
    return found[1] if found else ""


def tagged(image: str) -> str:
    """Host, path and tag of a name, such as docker.io/library/nginx:latest; "" for one by digest alone, or for none."""
    found = _parsed(image)
    if not found:
        return ""
    tag, _, digest = found[0][len(found[1]) :].partition("@")
    return f"{found[1]}{tag or LATEST}" if tag or not digest else ""


def _parsed(image: str) -> Optional[Match[str]]:
    if re.fullmatch(LOCAL, image):
        return None
    if image.startswith(FORMER_HUB):
        image = f"{HUB}/{image[len(FORMER_HUB) :]}"
    elif not re.match(r"[^/]*[.:A-Z][^/]*/|localhost/", image):
        image = f"{HUB}/{image}"
    if re.fullmatch(rf"{re.escape(HUB)}/[^/]+", image):
        image = f"{HUB}/{OFFICIAL}{image[len(HUB) + 1 :]}"
    return re.fullmatch(REFERENCE, image, re.ASCII)


def is_below(image: str, prefixes: Iterable[str]) -> bool:
    """Whether a name leads below one of some prefixes, each a host, or a host and a path, with a slash at its end."""
    found = repository(image)
    return bool(found) and any(f"{found}/".startswith(prefix) for prefix in prefixes)
