"""A double of K3s for tests: its command line, files, modes, ports, TLS listeners and journal lines.

It is not a K3s: there is no API, no kubelet and no etcd behind the ports. What it imitates was seen on a real
K3s v1.36.3; tests/contract/test_standin.py holds the two against each other. It needs Python 3.9 and `openssl`.
"""

from __future__ import annotations

import base64
import csv
import ctypes
import glob
import hashlib
import hmac
import http.server
import ipaddress
import json
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from typing import Any, NoReturn

Answer = tuple[int, str, str]
Args = dict[str, list[str]]
with zipfile.ZipFile(sys.argv[0]) as own:
    VERSION = own.read("version").decode()
    FACTS = json.loads(own.read("facts.json"))
HOST = socket.gethostname().lower()
RFC3339 = "%Y-%m-%dT%H:%M:%SZ"


def log(level: str, text: str) -> None:
    when = time.strftime(RFC3339, time.gmtime())
    print(f'time="{when}" level={level} msg={json.dumps(text, ensure_ascii=False)}', file=sys.stderr, flush=True)


def fatal(text: str) -> NoReturn:
    log("fatal", text)
    sys.exit(1)


def put(path: str, text: str = "", mode: int = 0o600, keep: bool = False) -> None:
    """Write a file; its mode is set when it is made, and one that somebody narrowed later stays."""
    if keep and os.path.exists(path):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as made:
        made.write(text)


def read(path: str) -> str:
    with open(path) as found:
        return found.read()


def folder(path: str, mode: int = 0o700) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if not os.path.exists(path):
        os.mkdir(path, mode)


# --- configuration -----------------------------------------------------------------------------------------------


def scalar(text: str) -> str:
    text = text.strip()
    if text[:1] == '"':
        return str(json.loads(text[: text.rindex('"') + 1]))
    if text[:1] == "'":
        return text[1 : text.rindex("'")].replace("''", "'")
    text = re.sub(r"(^|\s)#.*", "", text).strip()
    return text.lower() if text.lower() in ("true", "false") else text


def parse_yaml(text: str) -> list[tuple[str, list[str]]]:
    """The YAML that a configuration of K3s needs: a key with a scalar or a list; a plain scalar may be folded."""
    found: list[tuple[str, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        item, pair = re.match(r"\s*- (.*)", line), re.match(r"[\"']?([\w.+-]+)[\"']?:(?:\s+(.*)|$)", line)
        if not line.strip() or re.match(r"\s*#|---|\.\.\.", line):
            continue
        if item and found:
            found[-1][1].append(scalar(item.group(1)))
        elif pair:
            value = (pair.group(2) or "").strip()
            flow = re.match(r"\[(.*)\]\s*(?:#.*)?$", value)
            words = next(csv.reader([flow.group(1)], skipinitialspace=True), []) if flow else [value] * bool(value)
            found.append((pair.group(1), [scalar(word) for word in words]))
        elif line[0] in " \t" and found and found[-1][1]:
            found[-1][1][-1] += " " + scalar(line)
        else:
            fatal(f"yaml: line {number}: the double cannot read this")
    return found


def config_args(command: str, path: str) -> list[str]:
    """The configuration files as arguments: a repeated key replaces, key+ appends; a server skips unknown keys."""
    values: Args = {}
    drops = [name for name in sorted(glob.glob(path + ".d/*")) if name.lower().endswith((".yaml", ".yml"))]
    for name in [path] * os.path.exists(path) + drops:
        for key, value in parse_yaml(read(name)):
            plain = key.rstrip("+")
            values[plain] = values.get(plain, []) + value if key != plain else value
    known = " ".join(FACTS["flags"][command].values()).split() + list(FACTS["aliases"])
    for key in [key for key in values if key not in known and command == "server"]:
        for _ in values.pop(key):
            log("warning", f"Unknown flag --{key} found in config.yaml, skipping\n")
    return [f"--{key}={value}" for key, made in values.items() for value in made]


class Options(dict[str, list[str]]):
    """Flag -> all its values: those of the configuration first, so that the command line's is the last."""

    def __init__(self, command: str, argv: list[str]) -> None:
        super().__init__()
        path = os.environ.get("K3S_CONFIG_FILE", "/etc/rancher/k3s/config.yaml")
        for i, arg in enumerate(argv):
            if re.match(r"(--config|-c)(=|$)", arg):
                path = arg.partition("=")[2] or argv[i + 1]
        for name, variable in (("token", "K3S_TOKEN"), ("server", "K3S_URL"), ("data-dir", "K3S_DATA_DIR")):
            self[name] = [os.environ[variable]] if os.environ.get(variable) else []
        flags, args = FACTS["flags"][command], config_args(command, path) + argv
        while args:
            dashed, given, value = args.pop(0).partition("=")
            name = FACTS["aliases"].get(dashed.lstrip("-"), dashed.lstrip("-"))
            if name not in " ".join(flags.values()).split():
                print(f"Incorrect Usage: flag provided but not defined: -{name}\n")
                fatal(f"Error: flag provided but not defined: -{name}")
            if not given:
                value = "true" if name in flags["bool"].split() else args.pop(0)
            self.setdefault(name, []).append(value)
        for name in ("token", "agent-token"):
            if self.last(name + "-file"):
                try:
                    self[name] = [read(self.last(name + "-file")).strip()]
                except OSError as fault:
                    fatal(f"Error: open {fault.filename}: {str(fault.strerror).lower()}")

    def last(self, name: str, default: str = "") -> str:
        return (self.get(name) or [default])[-1]

    def on(self, name: str) -> bool:
        return self.last(name) == "true"

    def joined(self, name: str, default: str = "") -> str:
        return ",".join(self.get(name) or [default])


# --- certificates ------------------------------------------------------------------------------------------------


def make_cert(path: str, subject: str, ca: str = "", usage: str = "", names: str = "", mode: int = 0o644) -> None:
    """Make PATH.crt and PATH.key unless they are there; without `ca` an authority that signed itself."""
    if os.path.exists(path + ".crt"):
        return
    put(path + ".key")
    put(path + ".crt", mode=mode)
    usages = {"client": "clientAuth", "server": "serverAuth", "both": "serverAuth,clientAuth"}.get(usage, "")
    lines = [f"basicConstraints=critical,CA:{'FALSE' if ca else 'TRUE'}", "subjectKeyIdentifier=hash"]
    lines += ["keyUsage=critical,digitalSignature," + ("keyEncipherment" if ca else "keyCertSign")]
    lines += [f"extendedKeyUsage={usages}"] * bool(usages)
    lines += [f"subjectAltName={names}"] * (usage in ("server", "both"))
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256"]
    argv += ["-subj", subject, "-days", "365" if ca else "3650", "-keyout", path + ".key", "-out", path + ".crt"]
    argv += ["-CA", ca + ".crt", "-CAkey", ca + ".key"] if ca else []
    argv += [word for line in lines for word in ("-addext", line)]
    subprocess.run(argv, check=True, capture_output=True)
    if ca:
        with open(path + ".crt", "a") as made:
            made.write(read(ca + ".crt"))


def kubeconfig(path: str, server: str, ca: str, cert: str) -> None:
    words = (server, f": {ca}", f": {cert}.crt", f": {cert}.key", "local")
    put(path, "\n".join(FACTS["files"]["kubeconfig"]).format(*words) + "\n")


def admin_kubeconfig(path: str, server: str, tls: str, mode: str) -> None:
    names = ("server-ca.crt", "client-admin.crt", "client-admin.key")
    data = ["-data: " + base64.b64encode(read(f"{tls}/{name}").encode()).decode() for name in names]
    put(path, "\n".join(FACTS["files"]["kubeconfig"]).format(server, *data, "default") + "\n")
    os.chmod(path, int(mode, 8))
    log("info", f"Wrote kubeconfig {path}")


# --- listeners ---------------------------------------------------------------------------------------------------


class Listener(http.server.ThreadingHTTPServer):
    """A port; with `tls` (certificate, authority of its clients, whether they need a certificate) it speaks TLS.

    Without an authority no certificate is asked for: Python could only break the handshake of a foreign one, where
    K3s answers it like no certificate at all.
    """

    daemon_threads = True

    def __init__(
        self, address: str, port: int, answer: Callable[[Handler], Answer], tls: tuple[str, str, bool] | None = None
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.answer, self.context = answer, None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.minimum_version = ssl.TLSVersion.TLSv1_2
            self.context.load_cert_chain(tls[0] + ".crt", tls[0] + ".key")
            if tls[1]:
                self.context.load_verify_locations(tls[1])
                self.context.verify_mode = ssl.CERT_REQUIRED if tls[2] else ssl.CERT_OPTIONAL
        super().__init__((address, port), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        request.settimeout(30)
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is nothing to report."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every method with what the listener's function says."""

    protocol_version = "HTTP/1.1"
    server: Listener

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.give
        raise AttributeError(name)

    def give(self) -> None:
        code, kind, body = self.server.answer(self)
        self.send_response_only(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    def known(self) -> bool:
        """Whether the client has shown a certificate of the cluster."""
        return isinstance(self.connection, ssl.SSLSocket) and bool(self.connection.getpeercert())

    def log_message(self, *_: Any) -> None:
        """K3s' journal has no line for each request."""


def status(code: int, reason: str, message: str, api: bool = True) -> Answer:
    fields: dict[str, Any] = {"kind": "Status", **({"apiVersion": "v1"} if api else {}), "metadata": {}}
    fields.update(status="Failure", message=message, reason=reason, code=code)
    return code, "application/json", json.dumps(fields, indent=2)


def text(body: str, code: int = 200) -> Answer:
    return code, "text/plain; charset=utf-8", body


def healthy(_: Handler) -> Answer:
    return text('{"health":"true","reason":""}')


def silent(_: Handler) -> Answer:
    """A port of etcd that speaks gRPC only: a request in HTTP/1 gets no answer."""
    raise ConnectionError


ANONYMOUS = status(403, "Forbidden", 'forbidden: User "system:anonymous" cannot get path')


# --- components --------------------------------------------------------------------------------------------------


def merge(defaults: dict[str, str], extra: list[str]) -> Args:
    """Flag -> values as K3s joins them: an item replaces the default, `flag+=` adds to it, repeated items add up."""
    given: Args = {}
    for item in extra:
        name, assigned, value = item.lstrip("-").partition("=")
        plain = name.rstrip("-+")
        old = given.get(plain, [defaults[plain]] if name != plain and plain in defaults else [])
        new = [value if assigned else "true"]
        given[plain] = new + old if name.endswith("-") else old + new
    return {**{name: [value] for name, value in defaults.items()}, **given}


def one(args: Args, name: str) -> str:
    return args.get(name, [""])[-1]


def stop(component: str, why: str) -> NoReturn:
    """A component that does not start takes K3s along: before it is ready, and with exit code 0."""
    print(f"Error: {why}", file=sys.stderr)
    log("error", f"Shutdown request received: {json.dumps(f'{component} exited: {why}')}")
    sys.exit(0)


def check_apiserver(args: Args) -> None:
    """The files without which an API server does not start."""
    admission, audit = one(args, "admission-control-config-file"), one(args, "audit-policy-file")
    missing = "open {0}: no such file or directory"
    if audit and not os.path.exists(audit):
        stop("apiserver", f'loading audit policy file: failed to read file path "{audit}": {missing.format(audit)}')
    failed = "failed to apply admission: "
    if admission and not os.path.exists(admission):
        why = f'unable to read admission control configuration from "{admission}" [{missing.format(admission)}]'
        stop("apiserver", f"{failed}failed to read plugin config: {why}")
    limited = bool(admission) and re.search(r"^[\s-]*limits:\s*($|\[\s*[^\s\]])", read(admission), re.M)
    if "EventRateLimit" in one(args, "enable-admission-plugins").split(",") and not limited:
        why = 'couldn\'t init admission plugin "EventRateLimit": limits: Invalid value: null: must not be empty'
        stop("apiserver", failed + why)
    if one(args, "audit-log-path") not in ("", "-"):
        put(one(args, "audit-log-path"), keep=True)


class Node:
    """What a server and an agent have in common: the folder agent/, a kubelet and a kube-proxy."""

    kind = ""

    def __init__(self, opts: Options) -> None:
        self.opts = opts
        self.base = opts.last("data-dir", "/var/lib/rancher/k3s")
        self.agent, self.tls = f"{self.base}/agent", f"{self.base}/server/tls"
        self.name = opts.last("node-name", HOST).lower()
        self.ip = opts.joined("node-ip", own_address()).split(",")[0]
        self.bind, self.port = opts.last("bind-address", "::"), int(opts.last("https-listen-port", "6443"))
        self.values = {
            "AGENT": self.agent, "NODE": self.name, "IP": opts.joined("node-ip", self.ip), "TLS": self.tls,
            "LABELS": ",".join(opts.get("node-label", [])), "SERVER": f"{self.base}/server", "PORT": str(self.port),
            "CLUSTER": opts.joined("cluster-cidr", "10.42.0.0/16"),
            "SERVICE": opts.joined("service-cidr", "10.43.0.0/16"),
            "RANGE": opts.last("service-node-port-range", "30000-32767"),
            "DOMAIN": opts.last("cluster-domain", "cluster.local"), "BIND": opts.last("bind-address", "0.0.0.0"),
            "PROTECT": opts.last("protect-kernel-defaults", "false"),
        }  # fmt: skip

    def fact(self, name: str) -> str:
        return "\n".join(FACTS["files"][name]).format(**self.values) + "\n"

    def announce(self, component: str, *more: str) -> Args:
        """Write the journal's line about a component; returns its flags."""
        words = [word for name in (component, *more) for word in FACTS["args"].get(name, [name])]
        defaults = dict(word.format(**self.values).split("=", 1) for word in words)
        args = merge(defaults, self.opts.get(f"{component}-arg", []))
        line = " ".join(f"--{name}={value}" for name in sorted(args) for value in args[name])
        log("info", f"Running {component} {line}")
        return args

    def start_agent(self, api: str) -> None:
        """Write agent/, start the kubelet's listeners, and say what runs; `api` is where the API is reached."""
        agent, socket_path = self.agent, "/run/k3s/containerd/containerd.sock"
        for path, mode in (("/var/lib/kubelet", 0o750), (agent + "/pod-manifests", 0o750), ("/run/k3s", 0o711),
                           ("/run/k3s/containerd", 0o711), (agent + "/containerd", 0o700),
                           (agent + "/etc/kubelet.conf.d", 0o700), (agent + "/etc/cni/net.d", 0o700)):  # fmt: skip
            folder(path, mode)
        for name, cert in (("kubelet", "kubelet"), ("kubeproxy", "kube-proxy"), ("k3scontroller", "k3s-controller")):
            kubeconfig(f"{agent}/{name}.kubeconfig", api, f"{agent}/server-ca.crt", f"{agent}/client-{cert}")
        put(agent + "/etc/crictl.yaml", f"runtime-endpoint: unix://{socket_path}\n")
        put(agent + "/etc/containerd/config.toml", self.fact("containerd"), 0o644)
        put(agent + "/etc/kubelet.conf.d/00-k3s-defaults.conf", self.fact("kubelet"))
        log("info", f"Running containerd -c {agent}/etc/containerd/config.toml")
        if os.path.exists(socket_path):
            os.unlink(socket_path)
        self.containerd = socket.socket(socket.AF_UNIX)
        self.containerd.bind(socket_path)
        os.chmod(socket_path, 0o660)
        self.containerd.listen()
        self.announce("kube-proxy")
        taints = self.opts.get("node-taint")
        kubelet = self.announce("kubelet", *[f"register-with-taints={','.join(taints)}"] if taints else [])

        def answer(request: Handler) -> Answer:
            if request.path == "/":
                return text("404 page not found\n", 404)
            if one(kubelet, "anonymous-auth") == "true":
                return text("Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[proxy])", 403)
            return text("Unauthorized", 401)

        Listener(self.bind, 10250, answer, (agent + "/serving-kubelet", "", False))
        for port in (10248, 10249, 10256, 10010):
            Listener("127.0.0.1", port, lambda _: text("ok"))
        if self.opts.last("flannel-backend", "vxlan") == "vxlan":
            self.vxlan = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.vxlan.bind(("0.0.0.0", 8472))

    def ready(self) -> NoReturn:
        """Take K3s' title, tell systemd, and wait for the end."""
        set_title(os.environ.get("DOUBLE_TITLE", f"k3s {self.kind}"), f"k3s-{self.kind}")
        log("info", f"k3s {'agent ' if self.kind == 'agent' else ''}is up and running")
        if os.environ.get("NOTIFY_SOCKET"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
                systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
        while True:
            signal.pause()


def own_address() -> str:
    """The address that a packet to elsewhere would leave from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def set_title(title: str, comm: str) -> None:
    """Overwrite the arguments that /proc shows, as K3s does to keep secrets off it, and the command's name."""
    ctypes.CDLL(None).prctl(15, comm.encode(), 0, 0, 0)  # PR_SET_NAME
    start, end = map(int, read("/proc/self/stat").rpartition(")")[2].split()[45:47])
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, title.encode(), min(len(title.encode()), end - start - 1))


# --- joining -----------------------------------------------------------------------------------------------------


def fetch(url: str, ca: str, user: str = "", password: str = "") -> str:
    """Ask a server; without `ca` its certificate is not judged (as for /cacerts alone)."""
    context = ssl.create_default_context(cadata=ca) if ca else ssl._create_unverified_context()
    word = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {word}"} if user else {})
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:
        return str(answer.read().decode())


def trust(server: str, token: str) -> str:
    """The authority of a cluster, held against the hash in a full token; raises ValueError."""
    try:
        ca = fetch(server + "/cacerts", "")
    except OSError as fault:
        raise ValueError(f'failed to get CA certs: Get "{server}/cacerts": {fault}') from fault
    if not token:
        raise ValueError("token must not be empty")
    want, have = re.match(r"K10([0-9a-f]{64})::", token), hashlib.sha256(ca.encode()).hexdigest()
    if want and want.group(1) != have:
        raise ValueError(f"token CA hash does not match the Cluster CA certificate hash: {want.group(1)} != {have}")
    if not want:
        log(
            "warning",
            "Cluster CA certificate is not trusted by the host CA bundle, but the token does not include a CA hash.",
        )
    return ca


def secret_of(token: str) -> str:
    return token.rpartition(":")[2] if "::" in token else token


class Agent(Node):
    """`k3s agent`: it waits for ever for a server that knows its token."""

    kind = "agent"

    def run(self) -> NoReturn:
        if not self.opts.last("token") and not os.path.exists(self.agent + "/client-kubelet.crt"):
            fatal("Error: --token is required")
        if not self.opts.last("server"):
            fatal("Error: --server is required")
        server, token = self.opts.last("server").rstrip("/"), self.opts.last("token")
        log("info", f"Starting k3s agent {VERSION} (double)")
        put("/etc/rancher/node/password", secrets.token_hex(16) + "\n", keep=True)
        while not self.join(server, token):
            time.sleep(5)
        for address in ("127.0.0.1", "::1"):
            Listener(address, 6444, lambda _: text("a double forwards nothing", 503))
        self.start_agent("https://127.0.0.1:6444")
        self.ready()

    def join(self, server: str, token: str) -> bool:
        """Fetch this node's certificates; a node that has them needs no right token any more."""
        waiting = "Waiting to retrieve agent configuration; server is not ready: "
        try:
            ca = trust(server, token)
            if not os.path.exists(self.agent + "/client-kubelet.crt"):
                for name in FACTS["leaves"]:
                    url = f"{server}/v1-k3s/{name}.crt?node={self.name}&ip={self.ip}"
                    for end, made in json.loads(fetch(url, ca, "node", secret_of(token))).items():
                        put(f"{self.agent}/{end}", made)
            put(self.agent + "/server-ca.crt", ca)
            return True
        except ValueError as fault:
            log("error", f"Failed to validate connection to cluster at {server}: {fault}")
        except urllib.error.HTTPError:
            log("info", waiting + "failed to retrieve configuration from server: not authorized")
        except OSError as fault:
            log("info", f"{waiting}{fault}")
        return False


class Server(Node):
    """`k3s server`: the agent's part and the control plane's files, ports and journal lines."""

    kind = "server"

    def run(self) -> NoReturn:
        opts, tls, base = self.opts, self.tls, f"{self.base}/server"
        etcd = opts.on("cluster-init") or bool(opts.last("server")) or os.path.exists(base + "/db/etcd")
        log("info", f"Starting k3s {VERSION} (double)")
        for name in ("", "/cred", "/db", "/etc", "/manifests", "/static", "/tls", "/tls/temporary-certs"):
            folder(base + name)
        if opts.last("server") and not os.path.exists(tls + "/server-ca.key"):
            self.join()
        self.certificates()
        self.tokens()
        for name, cert in FACTS["kubeconfigs"].items():
            kubeconfig(f"{base}/cred/{name}.kubeconfig", "https://127.0.0.1:6444", f"{tls}/server-ca.crt",
                       f"{tls}/client-{cert}")  # fmt: skip
        put(base + "/cred/ipsec.psk", secrets.token_hex(48) + "\n", keep=True)
        put("/etc/rancher/node/password", secrets.token_hex(16) + "\n", keep=True)
        for name in FACTS["stubs"].split():
            put(f"{base}/{name}", keep=True)
        if opts.on("secrets-encryption"):
            self.encryption(base + "/cred/encryption-")
        self.start_etcd(base + "/db/etcd") if etcd else put(base + "/db/state.db", mode=0o644, keep=True)
        encrypted = os.path.exists(base + "/cred/encryption-config.json")
        apiserver = self.announce("kube-apiserver", "etcd" if etcd else "etcd-servers=unix://kine.sock",
                                  *["encryption"] * encrypted)  # fmt: skip
        check_apiserver(apiserver)
        self.anonymous = one(apiserver, "anonymous-auth") == "true"
        Listener("127.0.0.1", 6444, self.answer, (tls + "/serving-kube-apiserver", tls + "/client-ca.crt", False))
        Listener(self.bind, self.port, self.answer, (tls + "/temporary-certs/apiserver-loopback-client__", "", False))
        for port, name in ((10257, "kube-controller-manager"), (10259, "kube-scheduler"), (10258, "")):
            cert = f"{tls}/{name}/{name}" if name else tls + "/serving-kube-apiserver"
            Listener("127.0.0.1", port, lambda r: text("ok") if r.path == "/healthz" else ANONYMOUS, (cert, "", False))
        self.announce("kube-scheduler")
        self.announce("kube-controller-manager")
        admin_kubeconfig(opts.last("write-kubeconfig", "/etc/rancher/k3s/k3s.yaml"), f"https://127.0.0.1:{self.port}",
                         tls, opts.last("write-kubeconfig-mode", "0600"))  # fmt: skip
        if not opts.on("disable-agent"):
            for name in ("server-ca.crt", "client-ca.crt"):
                put(f"{self.agent}/{name}", read(f"{tls}/{name}"))
            for name in FACTS["leaves"]:
                self.leaf(name, self.agent, self.name, self.ip)
            self.start_agent(f"https://127.0.0.1:{self.port}")
        self.ready()

    def start_etcd(self, path: str) -> None:
        for name in ("", "/member", "/member/snap", "/member/wal", "/../snapshots"):
            folder(path + name)
        put(path + "/name", f"{self.name}-{secrets.token_hex(4)}", keep=True)
        put(path + "/config", f"data-dir: {path}\n")
        put(path + "/member/snap/db", "a double stores nothing\n", keep=True)
        certs = f"{self.tls}/etcd"
        client, peer = (f"{certs}/server-client", f"{certs}/server-ca.crt", True), f"{certs}/peer-server-client"
        for address in ("127.0.0.1", self.ip):
            Listener(address, 2379, silent, client)
            Listener(address, 2380, silent, (peer, f"{certs}/peer-ca.crt", True))
            if address == "127.0.0.1" or self.opts.on("etcd-expose-metrics"):
                Listener(address, 2381, healthy)
        Listener("127.0.0.1", 2382, healthy, client)

    def encryption(self, path: str) -> None:
        if not os.path.exists(path + "config.json"):
            name = self.opts.last("secrets-encryption-provider", "aescbc")
            key = {"name": f"{name}key", "secret": base64.b64encode(os.urandom(32)).decode()}
            rule = {"resources": ["secrets"], "providers": [{name: {"keys": [key]}}, {"identity": {}}]}
            config = {"kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1"}
            put(path + "config.json", json.dumps({**config, "resources": [rule]}))
            put(path + "state.json", "start-" + secrets.token_hex(32))

    def certificates(self) -> None:
        tls, now = self.tls, int(time.time())
        for name in ("client-ca", "server-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca"):
            common = name.replace("/", "-") if "/" in name else f"k3s-{name}"
            make_cert(f"{tls}/{name}", f"/CN={common}@{now}")
        for name in ("client-ca", "server-ca"):
            put(f"{tls}/{name}.nochain.crt", read(f"{tls}/{name}.crt"), 0o644, keep=True)
        names = f"DNS:kubernetes,DNS:kubernetes.default,DNS:localhost,DNS:{self.name},IP:127.0.0.1,IP:{self.ip}"
        for extra in self.opts.get("tls-san", []):
            names += f",{'IP' if re.match(r'[0-9.]+$|.*:', extra) else 'DNS'}:{extra}"
        for path, (subject, ca, usage) in FACTS["certificates"].items():
            make_cert(f"{tls}/{path}", subject, f"{tls}/{ca}", usage, names)
        if not os.path.exists(tls + "/service.key"):
            key = subprocess.run(["openssl", "genrsa", "2048"], check=True, capture_output=True, text=True).stdout
            put(tls + "/service.key", key)
            put(tls + "/service.current.key", key)

    def leaf(self, name: str, path: str, node: str, ip: str) -> None:
        subject, ca, usage = FACTS["leaves"][name]
        names = f"DNS:{node},DNS:localhost,IP:127.0.0.1,IP:{ip}"
        make_cert(f"{path}/{name}", subject.format(NODE=node), f"{self.tls}/{ca}", usage, names, 0o600)

    def tokens(self) -> None:
        """Write the tokens with the authority's hash; a cluster refuses a token other than its own."""
        base, failed = f"{self.base}/server", "Error: preparing server: failed to bootstrap cluster data: "
        given = secret_of(self.opts.last("token"))
        old = secret_of(read(base + "/token").strip()) if os.path.exists(base + "/token") else ""
        if old and given and old != given:
            fatal(failed + "failed to reconcile with local datastore: bootstrap data already found and encrypted with "
                  "different token")  # fmt: skip
        server = old or given or secrets.token_hex(16)
        self.secrets = {"server": server, "node": secret_of(self.opts.last("agent-token")) or server}
        full = f"K10{hashlib.sha256(read(self.tls + '/server-ca.crt').encode()).hexdigest()}::"
        put(base + "/token", f"{full}server:{server}\n")
        for link in ("node-token", "agent-token"):
            if os.path.lexists(f"{base}/{link}"):
                os.unlink(f"{base}/{link}")
            if link == "node-token" or self.secrets["node"] == server:
                os.symlink(base + "/token", f"{base}/{link}")
            else:
                put(f"{base}/{link}", f"{full}node:{self.secrets['node']}\n")
        put(base + "/cred/passwd", f"{self.secrets['node']},node,node,k3s:agent\n{server},server,server,k3s:server\n")

    def join(self) -> None:
        """Fetch the cluster's authorities from the server that is there already."""
        server, token, failed = self.opts.last("server").rstrip("/"), self.opts.last("token"), "preparing server: "
        try:
            found = fetch(server + "/v1-k3s/server-bootstrap", trust(server, token), "server", secret_of(token))
        except urllib.error.HTTPError:
            fatal(f"Error: {failed}failed to bootstrap cluster data: not authorized")
        except (OSError, ValueError) as fault:
            fatal(f"Error: {failed}failed to bootstrap cluster data: {fault}")
        for name, content in json.loads(found).items():
            put(f"{self.base}/server/{name}", content, 0o644 if name.endswith(".crt") else 0o600)

    def answer(self, request: Handler) -> Answer:
        """What 6443 says: the supervisor's paths, and of an API only what may be asked without one."""
        path, _, query = request.path.partition("?")
        fixed = {"/ping": "pong", "/cacerts": read(self.tls + "/server-ca.crt"), "/static/": "<!doctype html>\n"}
        if path in fixed:
            return text(fixed[path])
        if path.startswith("/v1-k3s/"):
            return self.supervisor(path[8:], dict(urllib.parse.parse_qsl(query)), request.headers.get("Authorization"))
        if not request.known() and not self.anonymous:
            return status(401, "Unauthorized", "Unauthorized")
        if path in ("/healthz", "/livez", "/readyz"):
            return text("ok")
        if path == "/version":
            return 200, "application/json", json.dumps({"gitVersion": VERSION, "platform": "double"})
        return status(501, "NotImplemented", "a double of K3s has no API") if request.known() else ANONYMOUS

    def supervisor(self, name: str, query: dict[str, str], authorization: str | None) -> Answer:
        if not authorization:
            return status(403, "Forbidden", "forbidden", api=False)
        user, _, password = base64.b64decode(authorization.partition(" ")[2]).decode().partition(":")
        allowed = {self.secrets["server"], self.secrets["node" if name != "server-bootstrap" else "server"]}
        if user not in self.secrets or not any(hmac.compare_digest(password, secret) for secret in allowed):
            return status(401, "Unauthorized", "not authorized", api=False)
        leaf = name[: -len(".crt")]
        if name == "server-bootstrap":
            paths = glob.glob(self.tls + "/**/*-ca*", recursive=True) + glob.glob(self.tls + "/service*.key")
            paths += glob.glob(self.base + "/server/cred/encryption-*")
            made = {os.path.relpath(path, self.base + "/server"): read(path) for path in paths}
        elif leaf in FACTS["leaves"] and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", query["node"]):
            with tempfile.TemporaryDirectory() as path:
                self.leaf(leaf, path, query["node"], str(ipaddress.ip_address(query["ip"])))
                made = {end: read(f"{path}/{end}") for end in (f"{leaf}.key", f"{leaf}.crt")}
            made["client-ca.crt"] = read(self.tls + "/client-ca.crt")
        else:
            return status(404, "NotFound", "the double does not know this", api=False)
        return 200, "application/json", json.dumps(made)


# --- other commands ----------------------------------------------------------------------------------------------


def kubectl(argv: list[str]) -> None:
    """Only `get --raw PATH` with K3s' kubeconfig."""
    found = re.search(r"(?:^| )get --raw[= ](\S+)$", " ".join(argv))
    if not found:
        sys.exit("error: this is a double of K3s: it has no API, and its kubectl only get --raw")
    config = read(os.environ.get("KUBECONFIG", "/etc/rancher/k3s/k3s.yaml"))
    ca, cert, key = (base64.b64decode(part).decode() for part in re.findall(r"-data: (\S+)", config))
    context = ssl.create_default_context(cadata=ca)
    with tempfile.NamedTemporaryFile("w") as pair:
        pair.write(cert + key)
        pair.flush()
        context.load_cert_chain(pair.name)
    with urllib.request.urlopen("https://127.0.0.1:6444" + found.group(1), context=context, timeout=10) as answer:
        sys.stdout.write(answer.read().decode())


def secrets_encrypt(base: str, as_json: bool) -> None:
    """`status`: disabled, or which key is in use; only while a server runs."""
    fetch("https://127.0.0.1:6443/cacerts", "")
    path = base + "/server/cred/encryption-"
    found: dict[str, Any] = {"stage": "", "activekey": ""}
    if os.path.exists(path + "config.json"):
        provider, body = next(iter(json.loads(read(path + "config.json"))["resources"][0]["providers"][0].items()))
        kind = {"aescbc": "AES-CBC", "secretbox": "XSalsa20-POLY1305"}[provider]
        found = {"stage": read(path + "state.json").partition("-")[0], "activekey": f"{kind} {body['keys'][0]['name']}"}
        found.update(enable=True, hashmatch=True)
    if as_json:
        print(json.dumps(found, indent="\t"))
    elif not found["stage"]:
        print("Encryption Status: Disabled, no configuration file found")
    else:
        print(f"Encryption Status: Enabled\nCurrent Rotation Stage: {found['stage']}")
        print("Server Encryption Hashes: All hashes match\n\nActive  Key Type           Name")
        print("------  --------           ----\n *      {:<18} {}\n".format(*found["activekey"].split()))


def certificate(base: str, as_json: bool) -> None:
    """`check`: the certificates of this node; exit code 0 even when one has expired."""
    kind = "Server" if os.path.exists(base + "/server/tls") else "Agent"
    log("info", f"{kind} detected, checking agent and server certificates")
    found = []
    paths = glob.glob(base + "/server/tls/**/*.crt", recursive=True) + glob.glob(base + "/agent/*.crt")
    for path in [path for path in paths if "-ca." not in path and "temporary" not in path]:
        seen = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]  # all that the library has for this
        subject, issuer = (dict(part[0] for part in seen[side])["commonName"] for side in ("subject", "issuer"))
        end, name = ssl.cert_time_to_seconds(seen["notAfter"]), os.path.basename(path)
        state = "EXPIRED" if end < time.time() else "WARNING" if end < time.time() + 120 * 86400 else "OK"
        client = re.match(r"client[-.]", name) or name.endswith("server-client.crt")
        usages = ["ServerAuth"] * (not re.match(r"client[-.]", name)) + ["ClientAuth"] * bool(client)
        found.append({"Filename": name, "Subject": subject, "Issuer": issuer, "Usages": usages, "Status": state,
                      "ExpiryTime": time.strftime(RFC3339, time.gmtime(end)),
                      "ResidualTime": int((end - time.time()) * 1e9)})  # fmt: skip
    if as_json:
        print(json.dumps({"Certificates": found}))
    for item in found if not as_json else []:
        log("info", "{Filename}: certificate {Subject} is {Status}, expires at {ExpiryTime}".format(**item))


def etcd_snapshot(base: str, as_json: bool, save: bool = True) -> None:
    """`save` and `ls`."""
    if not os.path.isdir(base + "/server/db/etcd"):
        fatal("Error: etcd datastore disabled")
    if save:
        name = f"on-demand-{HOST}-{int(time.time())}"
        put(f"{base}/server/db/snapshots/{name}", "a double stores nothing\n")
        return log("info", f"Snapshot {name} saved.")
    print("Name Location Size Created")
    for path in sorted(glob.glob(base + "/server/db/snapshots/*")):
        when = time.strftime(RFC3339, time.gmtime(os.path.getmtime(path)))
        print(os.path.basename(path), f"file://{path}", os.path.getsize(path), when)
    return None


def main() -> None:
    command, argv = sys.argv[1], sys.argv[2:]
    if command in ("server", "agent"):
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        opts = Options(command, argv)
        Server(opts).run() if command == "server" else Agent(opts).run()
    base, as_json = os.environ.get("K3S_DATA_DIR") or "/var/lib/rancher/k3s", "json" in " ".join(argv)
    others: dict[tuple[str, ...], Callable[[], None]] = {
        ("secrets-encrypt", "status"): lambda: secrets_encrypt(base, as_json),
        ("certificate", "check"): lambda: certificate(base, as_json),
        ("etcd-snapshot", "save"): lambda: etcd_snapshot(base, as_json),
        ("etcd-snapshot", "ls"): lambda: etcd_snapshot(base, as_json, save=False),
        ("token", "generate"): lambda: print(f"{secrets.token_hex(3)}.{secrets.token_hex(8)}"),
        ("kubectl", *argv[:1]): lambda: kubectl(argv),
    }
    known = others.get((command, *argv[:1]))
    if not known:
        fatal(f"Error: the double of K3s does not know: {' '.join([command, *argv[:1]])}")
    try:
        known()
    except OSError as fault:
        fatal(f"Error: {fault}")


os.umask(0o022)
main()
