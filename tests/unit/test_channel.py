"""Channels: what counts as two, and what each says of a release."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import pytest

from casemate.supply import channel
from casemate.supply.channel import Channel, ChannelError, demand_independent, read

VERSION = "v1.36.4+k3s1"
BYTES = {
    "k3s": b"amd64 -X github.com/k3s-io/k3s/pkg/version.Version=v1.36.4+k3s1 -s",
    "k3s-arm64": b"arm64 -X github.com/k3s-io/k3s/pkg/version.Version=v1.36.4+k3s1 -s",
}
FILES, BOTH = list(BYTES), ["amd64", "arm64"]
DIGESTS = {name: hashlib.sha256(data).hexdigest() for name, data in BYTES.items()}
SUMS = {
    "sha256sum-amd64.txt": f"{DIGESTS['k3s']}  k3s\n",
    "sha256sum-arm64.txt": f"{DIGESTS['k3s-arm64']}  k3s-arm64\n",
}


def release(folder: Path, **more: bytes) -> Path:
    """A downloaded release."""
    folder.mkdir()
    for name, data in {**BYTES, **{name: text.encode() for name, text in SUMS.items()}, **more}.items():
        (folder / name).write_bytes(data)
    return folder


def said(*places: object, version: str = VERSION) -> channel.Reading:
    return read(Channel("ours", tuple(map(str, places))), FILES, BOTH, version)


class Mirror(http.server.BaseHTTPRequestHandler):
    """A mirror of a release: paths and what they answer."""

    answers: ClassVar[dict[str, tuple[int, bytes]]] = {}

    def do_GET(self) -> None:
        """Answer, or lead away where the answer says so."""
        status, body = self.answers.get(self.path, (404, b""))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", body.decode())
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def mirror() -> Iterator[str]:
    Mirror.answers = {f"/{VERSION}/{name}": (200, text.encode()) for name, text in SUMS.items()}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_folder_says_what_its_bytes_are(tmp_path: Path) -> None:
    found = said(release(tmp_path / "release"))
    assert (found.digests, found.has_bytes) == (DIGESTS, True)


def test_files_of_checksums_of_one_channel_add_up(tmp_path: Path) -> None:
    folder = release(tmp_path / "release")
    found = said(*(folder / name for name in SUMS))
    assert (found.digests, found.has_bytes) == (DIGESTS, False)


def test_a_folder_whose_bytes_are_not_those_of_its_checksums_is_refused(tmp_path: Path) -> None:
    folder = release(tmp_path / "release")
    (folder / "k3s").write_bytes(BYTES["k3s"] + b"\0")
    with pytest.raises(ChannelError, match=r"contradicts itself about k3s: .*/k3s gives .*sha256sum-amd64\.txt"):
        said(folder)


def test_a_folder_of_another_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match=r"calls itself v1\.36\.4\+k3s1, and not v1\.36\.5\+k3s1"):
        said(release(tmp_path / "release"), version="v1.36.5+k3s1")


def test_a_link_in_a_folder_is_no_file_of_it(tmp_path: Path) -> None:
    folder = release(tmp_path / "release")
    (folder / "k3s").unlink()
    (folder / "k3s").symlink_to(folder / "k3s-arm64")
    with pytest.raises(ChannelError, match="no regular file"):
        said(folder)


@pytest.mark.parametrize(
    ("name", "says"), [("none", "cannot be read: No such file"), ("empty", "has nothing of a rel")]
)
def test_a_place_that_says_nothing_is_refused(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ChannelError, match=says):
        said(tmp_path / name)


def test_a_huge_or_malformed_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sums").write_bytes(b"x" * (channel.CAP + 1))
    with pytest.raises(ChannelError, match="larger than 1 MiB"):
        said(tmp_path / "sums")
    (tmp_path / "sums").write_text("latest\n")
    with pytest.raises(ChannelError, match="sums is refused: line 1"):
        said(tmp_path / "sums")


def test_an_address_is_read_as_a_file_or_as_a_folder(mirror: str) -> None:
    assert said(f"{mirror}/{VERSION}/").digests == DIGESTS
    assert said(f"{mirror}/{VERSION}/sha256sum-amd64.txt").digests == {"k3s": DIGESTS["k3s"]}


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("http://mirror.example.org/sums", "no https address"),
        ("ftp://127.0.0.1/sums", "no https address"),
        ("file:///etc/passwd", "no https address"),
        ("https://[::1/sums", "is no address such as"),
        ("https://mirror.example.org:99999/sums", "is no address such as"),
        ("https://me:canary@[::1/sums", "is no address such as"),
        ("https://me:canary@mirror\u2100.example.org/sums", "is no address such as"),
        ("https://me:canary@mirror.example.org/sums", "names an account"),
    ],
)
def test_no_other_address_is_fetched(place: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "fetch", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(ChannelError, match=says) as refused:
        said(place)
    assert "canary" not in str(refused.value)
    with pytest.raises(ChannelError, match=says):
        channel.demand_independent([Channel("a", (place,)), Channel("b", ("https://mirror.example.org/b",))])


def test_an_address_that_leads_elsewhere_fails_or_never_ends_is_refused(
    mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Mirror.answers |= {
        "/away": (302, b"http://127.0.0.2/sums"),
        "/page": (200, b"<html>log in</html>"),
        "/long": (200, b"x" * (channel.CAP + 1)),
    }
    for path, says in {"away": "not the source", "page": "line 1", "long": "larger than", "none": "Not Found"}.items():
        with pytest.raises(ChannelError, match=says):
            said(f"{mirror}/{path}")
    monkeypatch.setattr(channel, "SECONDS", 0)
    monkeypatch.setattr(channel, "fetch", lambda address, timeout: BytesIO(b"x" * channel.CAP))
    with pytest.raises(ChannelError, match="has not answered whole within 0 s"):
        said(f"{mirror}/slow")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://mirror.example.org/k3s/", "https://MIRROR.example.org./other/"),
        ("https://mirror.example.org/k3s/", "https://mirror.example.org:8443/k3s/"),
        ("https://mirror.example.org/k3s/", "https://m%69rror.example%2Eorg/k3s/"),
        ("https://mirror.example.org/k3s/", "https://mirror。example。org。/k3s/"),
        ("https://192.0.2.1/", "https://3221225985/"),
        ("https://192.0.2.1/", "https://192.0.513:8443/"),
        ("https://192.0.2.1/", "https://0xC0.0.0x2.01/"),
        ("http://127.1:8000/", "http://0x7f000001:9000/"),
        ("https://0.0.0.0/", "https://[::]:8443/"),
        ("https://0.0.0.0/", "https://localhost/"),
        ("http://127.0.0.1:8000/", "http://localhost:9000/"),
        ("http://127.0.0.1:8000/", "http://[::ffff:127.0.0.1]:9000/"),
        ("https://[2001:db8::1]/", "https://[2001:db8:0:0::1]:8443/"),
        ("https://192.0.2.1/", "https://[::ffff:192.0.2.1]/"),
        ("https://bücher.example.org/", "https://xn--bcher-kva.example.org/"),
        ("https://github.com/k3s-io/k3s/releases/", "https://release-assets.githubusercontent.com/github-production/"),
        ("https://objects.githubusercontent.com/", "https://www.github.com/"),
        ("http://[::1]/", "http://127.0.0.2/"),
        ("{here}/release", "{here}/release"),
        ("{here}/release", "{here}/release/sha256sum-amd64.txt"),
        ("{here}/release", "{here}/../{name}/release"),
        ("{here}", "{here}/release/sha256sum-amd64.txt"),
        ("{here}/release", "{here}/linked"),
        ("{here}/release", "{here}/hard"),
        ("{here}/release", "{here}/of_a_link"),
        ("{here}/release/sha256sum-amd64.txt", "{here}/of_a_link/sha256sum-amd64.txt"),
    ],
)
def test_what_comes_from_the_same_place_is_one_channel(tmp_path: Path, one: str, other: str) -> None:
    folder = release(tmp_path / "release")
    (tmp_path / "linked").symlink_to(folder)
    name = "sha256sum-amd64.txt"
    for other_folder in ("hard", "of_a_link"):
        (tmp_path / other_folder).mkdir()
    (tmp_path / "hard" / name).hardlink_to(folder / name)
    (tmp_path / "of_a_link" / name).symlink_to(folder / name)
    places = [place.format(here=tmp_path, name=tmp_path.name) for place in (one, other)]
    with pytest.raises(ChannelError, match=r"the channels a .* and b .* are one"):
        demand_independent([Channel("a", (places[0],)), Channel("c", ("/elsewhere",)), Channel("b", (places[1],))])


def test_one_channel_is_compared_with_nothing(tmp_path: Path) -> None:
    with pytest.raises(ChannelError, match="compared with nothing"):
        demand_independent([Channel("a", (str(tmp_path), "https://mirror.example.org/"))])


def test_places_of_different_people_are_two(tmp_path: Path) -> None:
    one, other = release(tmp_path / "one"), release(tmp_path / "other")
    demand_independent([Channel("a", (str(one),)), Channel("b", (str(other),)), Channel("c", ("https://c.example/",))])


def test_two_names_of_one_machine_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"a.example.org": "192.0.2.7", "b.example.org": "192.0.2.7", "c.example.org": "192.0.2.9"}

    def addresses(host: str, *_: Any, **__: Any) -> Any:
        if host not in known:
            raise OSError("unknown")
        return [(2, 1, 6, "", (known[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    channel._addresses.cache_clear()
    places = [(name, f"https://{name}.example.org/k3s/") for name in "abcd"]
    made = [Channel(name, (place, "/srv/release")) for name, place in places]
    assert channel.at_one_place(made) == ["the channels a (a.example.org) and b (b.example.org) are both at 192.0.2.7"]
    assert channel.at_one_place([Channel("a", tuple(place for _, place in places))]) == []
