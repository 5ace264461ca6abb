"""What a caller without credentials gets over HTTP(S), by status code, or that TLS itself refuses the caller.

The caller trusts any certificate on purpose: it plays a stranger and sends nothing secret.
"""

from __future__ import annotations

import concurrent.futures
import errno
import http.client
import socket
import ssl
from collections.abc import Collection
from typing import Annotated, Literal, TypedDict

from ..core.schema import Key
from ..core.verdict import Observation, Unavailable, Verdict
from ..host.machine import Host
from .kind import Kind


class Needed(TypedDict):
    """What every setting of this kind says."""

    address: Annotated[str, Key("host or IP address, as seen from the vantage")]
    port: Annotated[int, Key("the port")]


class Setting(Needed, total=False):
    """What a control of this kind may demand."""

    path: Annotated[str, Key("default: /", pattern=r"/\S*")]
    scheme: Annotated[Literal["https", "http"], Key("default: https")]
    status: Annotated[list[int], Key("status codes that count as right, such as [401, 403]")]
    tls: Annotated[Literal["refused"], Key("the handshake must fail for want of a client certificate")]
    may_be_unreachable: Annotated[bool, Key("no connection at all counts as right too")]


TIMEOUT = 4.0
ALERT_WAIT = 1.0
NO_WAY = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EADDRNOTAVAIL)


def identity(setting: Setting) -> str:
    """One control per port and path."""
    return f"{setting.get('scheme', 'https')}:{setting['port']}{setting.get('path', '/')}"


def _url(setting: Setting) -> str:
    host = f"[{setting['address']}]" if ":" in setting["address"] else setting["address"]
    return f"{setting.get('scheme', 'https')}://{host}:{setting['port']}{setting.get('path', '/')}"


def _stranger() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's authorities: reading them takes 30 ms
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _call(setting: Setting) -> Observation:
    """One request; where a refused handshake is demanded, first listen for the server's alert.

    In TLS 1.3 the client's handshake ends before the server has looked at its certificate: the refusal
    arrives as an alert on the first read, and a request sent into it may turn it into a bare reset.
    """
    secure = setting.get("scheme", "https") == "https"
    where = (setting["address"], setting["port"])
    connection = (
        http.client.HTTPSConnection(*where, timeout=TIMEOUT, context=_stranger())
        if secure
        else http.client.HTTPConnection(*where, timeout=TIMEOUT)
    )
    reached = False
    try:
        connection.connect()
        reached = True
        if setting.get("tls"):
            connection.sock.settimeout(ALERT_WAIT)
            try:
                connection.sock.recv(1)
            except socket.timeout:
                connection.sock.settimeout(TIMEOUT)  # it waits for a request: the caller is in
        connection.request("GET", setting.get("path", "/"), headers={"Connection": "close"})
        return {"status": connection.getresponse().status}
    except ssl.SSLError as refusal:
        return {"tls": "refused", "why": str(refusal.reason or refusal)}
    except ConnectionRefusedError:
        return {"unreachable": "refused"}
    except (http.client.HTTPException, OSError) as broken:
        if isinstance(broken, socket.timeout) and reached:
            return {"unreachable": "connected, but no answer"}
        if isinstance(broken, (socket.timeout, socket.gaierror)) or getattr(broken, "errno", 0) in NO_WAY:
            return {"unreachable": str(broken), "no_way": True}
        return {"broken": str(broken) or type(broken).__name__}
    finally:
        connection.close()


def observe(settings: list[Setting], host: Host, waived: Collection[int] = ()) -> list[Observation]:
    """All requests side by side; each is bounded by a few seconds."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(_call, settings))


def assess(setting: Setting, seen: Observation) -> Verdict:
    """Right is a listed status, or, where demanded, a handshake refused for want of a client certificate."""
    expected = {"tls": "refused"} if setting.get("tls") else {"status": list(setting.get("status") or [401, 403])}
    url = _url(setting)
    evidence = f"GET {url} without credentials"
    if "unreachable" in seen:
        if setting.get("may_be_unreachable"):
            return Verdict(ok=True, expected=expected, observed="unreachable", evidence=evidence)
        if seen.get("no_way"):
            raise Unavailable("vantage", f"{url} cannot be reached from here ({seen['unreachable']})")
        raise Unavailable("k3s", f"{url} does not answer ({seen['unreachable']})")
    status = seen.get("status", 0)
    if status >= 500 and "status" in expected and status not in expected["status"]:
        raise Unavailable("k3s", f"{url} answers {status}: it is starting, or broken")
    if setting.get("tls"):
        ok = seen.get("tls") == "refused" and "certificate" in str(seen.get("why", "")).lower()
    else:
        ok = status in expected["status"]
    why = f"it answers {status}" if status >= 400 else "a caller without credentials gets through"
    if "broken" in seen or (seen.get("tls") == "refused" and not setting.get("tls")):
        why = f"the connection broke: {seen.get('broken') or seen.get('why')}"
    return Verdict(ok=ok, expected=expected, observed=seen, reason="" if ok else why, evidence=evidence)


KIND: Kind[Setting] = Kind(Setting, identity, observe, assess, places=lambda setting: [_url(setting)])
