"""A double of K3s for tests: its command line, files, modes, ports, TLS listeners and journal lines.

It is not a K3s: there is no API, no kubelet and no etcd behind the ports. What it imitates was seen on a real
K3s v1.36.3 (facts.json); tests/contract/test_double.py holds the two against each other. It needs Python 3.9 and
`openssl`. Paths are relative to the data directory.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import glob
import hashlib
import http.server
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
import urllib.request
import zipfile
from collections.abc import Callable
from typing import Any, NoReturn

Answer = tuple[int, Any]
Args = dict[str, list[str]]
with zipfile.ZipFile(sys.argv[0]) as own:
    VERSION = own.read("version").decode()
    FACTS = json.loads(own.read("facts.json"))
HOST = socket.gethostname().lower()
RFC3339 = "%Y-%m-%dT%H:%M:%SZ"
TLS = "server/tls"
ENCRYPTION = "server/cred/encryption-"
KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"
FAILED = "Error: preparing server: failed to bootstrap cluster data: "


def log(level: str, text: str) -> None:
    when = time.strftime(RFC3339, time.gmtime())
    print(f'time="{when}" level={level} msg={json.dumps(text, ensure_ascii=False)}', file=sys.stderr, flush=True)


def fatal(text: str) -> NoReturn:
    log("fatal", text)
    sys.exit(1)


def put(path: str, text: str, mode: int = 0o600) -> None:
    """Write a file; its mode is set when it is made, and one that somebody narrowed later stays."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as made:
        made.write(text)


def read(path: str) -> str:
    with open(path) as found:
        return found.read()


# --- configuration -----------------------------------------------------------------------------------------------


def scalar(text: str) -> str:
    text = text.strip()
    return str(json.loads(text)) if text.startswith('"') else re.sub(r"\s#.*", "", text).strip("'")


def parse_yaml(text: str) -> list[tuple[str, list[str]]]:
    """The YAML that these configurations need: keys with a scalar, a list on their line, or one item a line."""
    found: list[tuple[str, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        item, pair = re.match(r"\s*- (.*)", line), re.match(r"([\w+-]+):\s*(.*)", line)
        if item and found:
            found[-1][1].append(scalar(item[1]))
        elif pair:
            words = pair[2][1:-1].split(",") if pair[2].startswith("[") else [pair[2]]
            found.append((pair[1], [scalar(word) for word in words if word]))
        elif line and not line.startswith("#"):
            fatal(f"yaml: line {number}: the double cannot read this")
    return found


def read_options(command: str, argv: list[str]) -> Args:
    """Flag -> all its values: those of the configuration first, so that the command line's is the last.

    In the configuration a repeated key replaces, key+ appends; a server skips unknown keys.
    """
    flags, found = FACTS["flags"][command], Args()
    known = " ".join(flags.values()).split()
    config = os.environ.get("K3S_CONFIG_FILE", "/etc/rancher/k3s/config.yaml")
    for path in filter(os.path.exists, [config, *sorted(glob.glob(config + ".d/*.yaml"))]):
        for key, values in parse_yaml(read(path)):
            name = key.rstrip("+")
            if name not in known and command == "server":
                log("warning", f"Unknown flag --{name} found in config.yaml, skipping\n")
            else:
                found[name] = values if name == key else found.get(name, []) + values
    while argv:
        name, given, value = argv.pop(0).lstrip("-").partition("=")
        if not given:
            value = argv.pop(0) if name in flags["value"].split() else "true"
        found.setdefault(name, []).append(value)
    for name in found:
        if name not in known:
            fatal(f"Error: flag provided but not defined: -{name}")
    for name in ("token", "agent-token"):
        if found.get(name + "-file"):
            found[name] = [read(found[name + "-file"][-1]).strip()]
    return found


# --- certificates ------------------------------------------------------------------------------------------------


def make_cert(path: str, subject: str, ca: str, usage: str, names: str, mode: int = 0o644) -> None:
    """Make PATH.crt and PATH.key unless they are there; without `ca` an authority that signed itself."""
    if os.path.exists(path + ".crt"):
        return
    put(path + ".crt", "", mode)
    extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,digitalSignature,keyCertSign"]
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256"]
    argv += ["-subj", subject, "-days", "365" if ca else "3650", "-keyout", path + ".key", "-out", path + ".crt"]
    if ca:
        argv += ["-CA", ca + ".crt", "-CAkey", ca + ".key"]
        extensions = ["basicConstraints=critical,CA:FALSE", f"extendedKeyUsage={usage}"]
    if "serverAuth" in usage:
        extensions += [f"subjectAltName=DNS:localhost,IP:127.0.0.1,{names}"]
    subprocess.run([*argv, *(f"-addext={each}" for each in extensions)], check=True, capture_output=True)


def make_leaves(folder: str, node: str, ip: str) -> None:
    """What a node gets from the cluster: its own certificates, and the authorities'."""
    for name, (subject, ca, usage) in FACTS["leaves"].items():
        make_cert(f"{folder}/{name}", subject.format(node=node), ca, usage, f"DNS:{node},IP:{ip}", 0o600)
    for name in ("client-ca.crt", "server-ca.crt"):
        put(f"{folder}/{name}", read(f"{TLS}/{name}"))


# --- listeners ---------------------------------------------------------------------------------------------------


class Listener(http.server.ThreadingHTTPServer):
    """A port; with `cert` it speaks TLS, with `clients` it asks for a certificate of this authority.

    Only 6444 takes a client without one. Where it is not asked for, Python could only break the handshake of a
    foreign one; K3s answers it like no certificate at all.
    """

    daemon_threads = True

    def __init__(self, address: str, port: int, cert: str, clients: str, answer: Callable[[Handler], Answer]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.answer = answer
        super().__init__((address, port), Handler)
        if cert:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(cert + ".crt", cert + ".key")
            if clients:
                context.load_verify_locations(clients)
                context.verify_mode = ssl.CERT_OPTIONAL if port == 6444 else ssl.CERT_REQUIRED
            # The handshake comes with the first read, in the thread of the request.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is nothing to report."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what the listener's function says."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    server: Listener

    def do_GET(self) -> None:
        code, said = self.server.answer(self)
        body = (said if isinstance(said, str) else json.dumps(said)).encode()
        self.send_response_only(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def fixed(name: str) -> Callable[[Handler], Answer]:
    """Answers by path; a port of etcd that speaks gRPC has none, and drops who asks."""
    answers = FACTS["answers"][name]
    return lambda request: answers.get(request.path) or answers[""]


def status(code: int, reason: str, message: str) -> Answer:
    return code, {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


def fetch(url: str, context: ssl.SSLContext, user: str = "") -> str:
    """Ask a server; `user` is name:password."""
    headers = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if user else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), context=context, timeout=10) as answer:
        return str(answer.read().decode())


# --- nodes -------------------------------------------------------------------------------------------------------


def secret_of(token: str) -> str:
    return token.strip().rpartition(":")[2]


class Node:
    """What a server and an agent have in common: the folder agent/, a kubelet and a kube-proxy."""

    def __init__(self, command: str, opts: Args) -> None:
        self.command, self.opts = command, opts
        self.values = {**FACTS["defaults"], "node-name": HOST, **{name: ",".join(each) for name, each in opts.items()}}
        self.name, self.ip = self.values["node-name"], self.values["node-ip"].split(",")[0]
        os.chdir(self.values["data-dir"])

    def option(self, name: str) -> str:
        return (self.opts.get(name) or [""])[-1]

    def lay(self, kind: str) -> None:
        """Make the folders and files that only have to be there, with K3s' modes."""
        for mode, paths in FACTS["folders"][kind].items():
            for path in paths.split():
                os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
                if not os.path.exists(path):
                    os.mkdir(path, int(mode, 8))
        for mode, paths in FACTS["files"][kind].items():
            for path in paths.split():
                put(path, "a double of K3s has nothing to say here\n", int(mode, 8))

    def listen(self, kind: str) -> None:
        for address, port, cert, clients, answers in FACTS["listeners"][kind]:
            Listener(address.format(ip=self.ip), port, cert, clients, fixed(answers))

    def announce(self, component: str, *more: str) -> Args:
        """Write the journal's line about a component, whose given flags replace the defaults; return its flags."""
        given, args = Args(), Args()
        for item in self.opts.get(f"{component}-arg", []):
            name, assigned, value = item.partition("=")
            given.setdefault(name, []).append(value if assigned else "true")
        for word in [word for name in (component, *more) for word in FACTS["args"][name]]:
            name, _, value = word.format(**self.values).partition("=")
            args[name] = [value]
        args.update(given)
        line = " ".join(f"--{name}={value}" for name in sorted(args) for value in args[name])
        log("info", f"Running {component} {line}")
        return args

    def check_gates(self, kubelet: Args) -> None:
        """A kubelet that does not know a feature gate ends, and takes K3s along: some time after it was ready."""
        names = [
            pair.partition("=")[0] for value in kubelet.get("feature-gates", []) for pair in value.split(",") if pair
        ]
        unknown = [name for name in names if name not in FACTS["gates"].split()]
        if unknown:
            why = (
                f"failed to set feature gates from initial flags-based config: unrecognized feature gate: {unknown[0]}"
            )
            threading.Timer(2, self.end, [f'Shutdown request received: "kubelet exited: {why}"']).start()

    def end(self, text: str) -> None:
        log("error", text)
        os._exit(0)

    def join(self, what: str, user: str) -> None:
        """Fetch files of the cluster from its server; raises ValueError when that is not the token's, or OSError."""
        server, token = self.option("server").rstrip("/") + "/", self.option("token")
        ca = fetch(server + "cacerts", ssl._create_unverified_context())
        want, have = re.match(r"K10([0-9a-f]{64})::", token), hashlib.sha256(ca.encode()).hexdigest()
        if want and want[1] != have:
            raise ValueError(f"token CA hash does not match the Cluster CA certificate hash: {want[1]} != {have}")
        context = ssl.create_default_context(cadata=ca)
        for path, text in json.loads(fetch(f"{server}v1-k3s/{what}", context, f"{user}:{secret_of(token)}")).items():
            put(path, text, 0o644 if path.startswith(TLS) and path.endswith(".crt") else 0o600)

    def run_agent(self) -> NoReturn:
        """Be a node: files, listeners, journal lines and K3s' title; tell systemd, and wait for the end."""
        self.lay("agent")
        resolvers = self.option("resolv-conf") or "/etc/resolv.conf"
        put("agent/etc/kubelet.conf.d/00-k3s-defaults.conf", f"resolvConf: {resolvers}\n")
        self.announce("kube-proxy")
        self.check_gates(self.announce("kubelet"))
        self.listen("kubelet")
        path = "/run/k3s/containerd/containerd.sock"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with socket.socket(socket.AF_UNIX) as containerd, socket.socket(type=socket.SOCK_DGRAM) as vxlan:
            containerd.bind(path)
            os.chmod(path, 0o660)
            containerd.listen()
            vxlan.bind(("0.0.0.0", 8472))
            set_title(os.environ["DOUBLE_TITLE"], f"k3s-{self.command}")
            if os.environ.get("NOTIFY_SOCKET"):
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
                    systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
            while True:
                signal.pause()


def set_title(title: str, comm: str) -> None:
    """Overwrite the arguments that /proc shows, as K3s does to keep secrets off it, and the command's name."""
    ctypes.CDLL(None).prctl(15, comm.encode(), 0, 0, 0)  # PR_SET_NAME
    start, end = map(int, read("/proc/self/stat").rpartition(")")[2].split()[45:47])
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, title.encode(), min(len(title.encode()), end - start - 1))


class Agent(Node):
    """`k3s agent`: it waits for ever for a server that knows its token."""

    def run(self) -> NoReturn:
        for name in ("token", "server"):
            if not self.option(name):
                fatal(f"Error: --{name} is required")
        log("info", f"Starting k3s agent {VERSION} (double)")
        while not self.joined():
            time.sleep(5)
        self.listen("agent")
        self.run_agent()

    def joined(self) -> bool:
        try:
            self.join(f"{self.name}/{self.ip}", "node")
            return True
        except urllib.error.HTTPError:
            why = "failed to retrieve configuration from server: not authorized"
            log("info", f"Waiting to retrieve agent configuration; server is not ready: {why}")
        except (OSError, ValueError) as fault:
            log("error", f"Failed to validate connection to cluster at {self.option('server')}: {fault}")
        return False


class Server(Node):
    """`k3s server`: the agent's part and the control plane's files, ports and journal lines."""

    def run(self) -> NoReturn:
        log("info", f"Starting k3s {VERSION} (double)")
        self.lay("server")
        if self.option("server") and not os.path.exists(TLS + "/server-ca.key"):
            try:
                self.join("server-bootstrap", "server")
            except (OSError, ValueError) as fault:
                fatal(f"{FAILED}{fault}")
        names, now = f"DNS:kubernetes,DNS:kubernetes.default,DNS:{self.name},IP:{self.ip}", int(time.time())
        for path, (subject, ca, usage) in FACTS["certificates"].items():
            make_cert(path, subject.format(now=now), ca, usage, names)
        make_leaves("agent", self.name, self.ip)
        self.kubeconfig()
        self.tokens()
        if self.option("secrets-encryption") == "true" and not os.path.exists(ENCRYPTION + "config.json"):
            self.encrypt()
        encrypted = ["encryption"] * os.path.exists(ENCRYPTION + "config.json")
        self.check_files(self.announce("kube-apiserver", *encrypted))
        self.announce("kube-scheduler")
        self.announce("kube-controller-manager")
        self.listen("server")
        Listener("127.0.0.1", 6444, TLS + "/serving-kube-apiserver", TLS + "/client-ca.crt", self.answer)
        Listener("::", 6443, TLS + "/temporary-certs/apiserver-loopback-client__", "", self.answer)
        self.run_agent()

    def kubeconfig(self) -> None:
        """Write the administrator's, which holds a key of the cluster's."""
        held = {"AUTHORITY": "server-ca.crt", "CERTIFICATE": "client-admin.crt", "KEY": "client-admin.key"}
        text = FACTS["kubeconfig"]
        for word, name in held.items():
            text = text.replace(word, base64.b64encode(read(f"{TLS}/{name}").encode()).decode())
        put(KUBECONFIG, text)
        os.chmod(KUBECONFIG, int(self.option("write-kubeconfig-mode") or "600", 8))

    def tokens(self) -> None:
        """Write the tokens with the authority's hash; a cluster refuses a token other than its own."""
        old = secret_of(read("server/token")) if os.path.exists("server/token") else ""
        given = secret_of(self.option("token"))
        if old and given and old != given:
            why = "bootstrap data already found and encrypted with different token"
            fatal(f"{FAILED}failed to reconcile with local datastore: {why}")
        server = old or given or secrets.token_hex(16)
        self.secrets = {"server": server, "node": secret_of(self.option("agent-token")) or server}
        pin = hashlib.sha256(read(TLS + "/server-ca.crt").encode()).hexdigest()
        for path, user in (("server/token", "server"), ("server/agent-token", "node")):
            put(path, f"K10{pin}::{user}:{self.secrets[user]}\n")
        if not os.path.lexists("server/node-token"):
            os.symlink(os.path.abspath("server/token"), "server/node-token")

    def encrypt(self) -> None:
        name = self.option("secrets-encryption-provider") or "aescbc"
        key = {"name": f"{name}key", "secret": base64.b64encode(os.urandom(32)).decode()}
        rule = {"resources": ["secrets"], "providers": [{name: {"keys": [key]}}, {"identity": {}}]}
        config = {"kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1", "resources": [rule]}
        put(ENCRYPTION + "config.json", json.dumps(config))
        put(ENCRYPTION + "state.json", "start-" + secrets.token_hex(32))

    def check_files(self, apiserver: Args) -> None:
        """Without these the API server does not start, and takes K3s along: before it is ready, with exit code 0."""
        for flag, why in FACTS["needs"].items():
            path = apiserver.get(flag, [""])[-1]
            if path and not os.path.exists(path):
                log("error", f"Shutdown request received: apiserver exited: {why.format(path)}")
                sys.exit(0)

    def answer(self, request: Handler) -> Answer:
        """What 6443 says: the supervisor's paths, and of an API only whether it is ready."""
        if request.path == "/ping":
            return 200, "pong"
        if request.path == "/cacerts":
            return 200, read(TLS + "/server-ca.crt")
        if request.path.startswith("/v1-k3s/"):
            return self.supervise(request.path.split("/")[2:], request.headers.get("Authorization"))
        if not request.connection.getpeercert():
            return status(401, "Unauthorized", "Unauthorized")
        return (200, "ok") if request.path == "/readyz" else status(501, "NotImplemented", "a double of K3s has no API")

    def supervise(self, asked: list[str], authorization: str | None) -> Answer:
        """Give who knows the token what to join with: a server the authorities, an agent (NODE/IP) its certificates."""
        if not authorization:
            return status(403, "Forbidden", "forbidden")
        bootstrap = asked == ["server-bootstrap"]
        allowed = {self.secrets["server"], self.secrets["server" if bootstrap else "node"]}
        if secret_of(base64.b64decode(authorization.partition(" ")[2]).decode()) not in allowed:
            return status(401, "Unauthorized", "not authorized")
        if bootstrap:
            paths = glob.glob(TLS + "/**/*-ca.*", recursive=True) + glob.glob(ENCRYPTION + "*")
            return 200, {path: read(path) for path in paths}
        with tempfile.TemporaryDirectory() as folder:
            make_leaves(folder, *asked)
            return 200, {f"agent/{name}": read(f"{folder}/{name}") for name in os.listdir(folder)}


# --- other commands ----------------------------------------------------------------------------------------------


def kubectl() -> None:
    """Only `get --raw PATH`, as the cluster's administrator."""
    found = re.search(r" get --raw[= ](\S+)$", " ".join(sys.argv))
    if not found:
        fatal("Error: the double of K3s has no API, and its kubectl only get --raw")
    context = ssl.create_default_context(cafile=TLS + "/server-ca.crt")
    context.load_cert_chain(TLS + "/client-admin.crt", TLS + "/client-admin.key")
    sys.stdout.write(fetch("https://127.0.0.1:6444" + found[1], context))


def encryption_status() -> None:
    """Which key is in use, as JSON."""
    rule = json.loads(read(ENCRYPTION + "config.json"))["resources"][0]
    provider, body = next(iter(rule["providers"][0].items()))
    key = f"{FACTS['ciphers'][provider]} {body['keys'][0]['name']}"
    stage = read(ENCRYPTION + "state.json").partition("-")[0]
    print(json.dumps({"stage": stage, "activekey": key, "enable": True, "hashmatch": True}))


def certificate_check() -> None:
    """The certificates of this node as JSON; exit code 0 even when one is about to expire."""
    found = []
    made = {**FACTS["certificates"], **{f"agent/{name}": leaf for name, leaf in FACTS["leaves"].items()}}
    for path in [path + ".crt" for path, (_, ca, _) in made.items() if ca and os.path.exists(path + ".crt")]:
        seen = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]  # all that the library has for this
        subject, issuer = (dict(part[0] for part in seen[side])["commonName"] for side in ("subject", "issuer"))
        end = ssl.cert_time_to_seconds(seen["notAfter"])
        left = end - time.time()
        usages = [usage[0].upper() + usage[1:] for usage in made[path[:-4]][2].split(",")]
        found.append({"Filename": os.path.basename(path), "Subject": subject, "Issuer": issuer, "Usages": usages,
                      "Status": "OK" if left > 120 * 86400 else "WARNING", "ResidualTime": int(left * 1e9),
                      "ExpiryTime": time.strftime(RFC3339, time.gmtime(end))})  # fmt: skip
    print(json.dumps({"Certificates": found}))


def snapshot_save() -> None:
    name = f"on-demand-{HOST}-{int(time.time())}"
    put(f"server/db/snapshots/{name}", "a double of K3s stores nothing\n")
    log("info", f"Snapshot {name} saved.")


def main() -> None:
    command, argv = sys.argv[1], sys.argv[2:]
    if command in ("server", "agent"):
        kind = Server if command == "server" else Agent
        kind(command, read_options(command, argv)).run()
    os.chdir(FACTS["defaults"]["data-dir"])
    commands: dict[str, Callable[[], None]] = {
        "secrets-encrypt status": encryption_status,
        "certificate check": certificate_check,
        "etcd-snapshot save": snapshot_save,
        "ctr --version": lambda: print("ctr, of which a double of K3s has nothing but the name"),
        "etcd-snapshot ls": lambda: print(*sorted(os.listdir("server/db/snapshots")), sep="\n"),
    }
    known = kubectl if command == "kubectl" else commands.get(" ".join(sys.argv[1:3]))
    if not known:
        fatal(f"Error: the double of K3s does not know: {' '.join(sys.argv[1:3])}")
    known()


os.umask(0o022)
main()
