"""A double of K3s for tests: its command line, files, modes, ports, TLS listeners and journal lines.

It is not a K3s: there is no API, no kubelet and no etcd behind the ports. What it imitates was observed on a
real K3s v1.36.3, and tests/contract/test_standin.py holds the two against each other. Python 3.9, standard
library and the program `openssl`.
"""

import base64
import csv
import ctypes
import functools
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

with zipfile.ZipFile(sys.argv[0]) as own:
    VERSION = own.read("version").decode()
    FLAGS = json.loads(own.read("flags.json"))
CIPHERS = ",".join(
    "TLS_ECDHE_%s_WITH_%s" % (key, cipher)
    for cipher in ("AES_256_GCM_SHA384", "AES_128_GCM_SHA256", "CHACHA20_POLY1305")
    for key in ("ECDSA", "RSA")
)
CIDRS = (("cluster", "10.42.0.0/16"), ("service", "10.43.0.0/16"))
# Flags of the components as a real K3s v1.36.3 showed them in its journal.
COMPONENTS = {
    "kube-apiserver": """advertise-address=IP advertise-port=PORT allow-privileged=true anonymous-auth=false
        api-audiences=https://kubernetes.default.svc.DOMAIN,k3s authorization-mode=Node,RBAC bind-address=127.0.0.1
        cert-dir=TLS/temporary-certs client-ca-file=TLS/client-ca.crt
        egress-selector-config-file=SERVER/etc/egress-selector-config.yaml enable-admission-plugins=NodeRestriction
        enable-aggregator-routing=true enable-bootstrap-token-auth=true
        kubelet-certificate-authority=TLS/server-ca.crt kubelet-client-certificate=TLS/client-kube-apiserver.crt
        kubelet-client-key=TLS/client-kube-apiserver.key
        kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname profiling=false
        proxy-client-cert-file=TLS/client-auth-proxy.crt proxy-client-key-file=TLS/client-auth-proxy.key
        requestheader-allowed-names=system:auth-proxy requestheader-client-ca-file=TLS/request-header-ca.crt
        requestheader-extra-headers-prefix=X-Remote-Extra- requestheader-group-headers=X-Remote-Group
        requestheader-username-headers=X-Remote-User secure-port=6444
        service-account-issuer=https://kubernetes.default.svc.DOMAIN service-account-key-file=TLS/service.key
        service-account-signing-key-file=TLS/service.current.key service-cluster-ip-range=SERVICE
        service-node-port-range=RANGE storage-backend=etcd3 tls-cert-file=TLS/serving-kube-apiserver.crt
        tls-cipher-suites=CIPHERS tls-private-key-file=TLS/serving-kube-apiserver.key""",
    "kube-scheduler": """authentication-kubeconfig=SERVER/cred/scheduler.kubeconfig
        authorization-kubeconfig=SERVER/cred/scheduler.kubeconfig bind-address=127.0.0.1
        kubeconfig=SERVER/cred/scheduler.kubeconfig profiling=false secure-port=10259
        tls-cert-file=TLS/kube-scheduler/kube-scheduler.crt
        tls-private-key-file=TLS/kube-scheduler/kube-scheduler.key""",
    "kube-controller-manager": """allocate-node-cidrs=true
        authentication-kubeconfig=SERVER/cred/controller.kubeconfig
        authorization-kubeconfig=SERVER/cred/controller.kubeconfig bind-address=127.0.0.1 cluster-cidr=CLUSTER
        cluster-signing-kube-apiserver-client-cert-file=TLS/client-ca.nochain.crt
        cluster-signing-kube-apiserver-client-key-file=TLS/client-ca.key
        cluster-signing-kubelet-client-cert-file=TLS/client-ca.nochain.crt
        cluster-signing-kubelet-client-key-file=TLS/client-ca.key
        cluster-signing-kubelet-serving-cert-file=TLS/server-ca.nochain.crt
        cluster-signing-kubelet-serving-key-file=TLS/server-ca.key
        cluster-signing-legacy-unknown-cert-file=TLS/server-ca.nochain.crt
        cluster-signing-legacy-unknown-key-file=TLS/server-ca.key configure-cloud-routes=false
        controllers=*,tokencleaner,-service,-route,-cloud-node-lifecycle
        kubeconfig=SERVER/cred/controller.kubeconfig profiling=false root-ca-file=TLS/server-ca.crt
        secure-port=10257 service-account-private-key-file=TLS/service.current.key service-cluster-ip-range=SERVICE
        tls-cert-file=TLS/kube-controller-manager/kube-controller-manager.crt
        tls-private-key-file=TLS/kube-controller-manager/kube-controller-manager.key
        use-service-account-credentials=true""",
}
ETCD = """ etcd-cafile=TLS/etcd/server-ca.crt etcd-certfile=TLS/etcd/client.crt etcd-keyfile=TLS/etcd/client.key
    etcd-servers=https://127.0.0.1:2379"""
ENCRYPTION = """ encryption-provider-config=SERVER/cred/encryption-config.json
    encryption-provider-config-automatic-reload=true"""
KUBECONFIGS = {"admin": "admin", "api-server": "kube-apiserver", "controller": "controller", "scheduler": "scheduler",
               "cloud-controller": "k3s-cloud-controller", "supervisor": "supervisor"}  # fmt: skip
CERTIFICATES = {
    "client-admin": ("/O=system:masters/CN=system:admin", "client-ca", "client"),
    "client-supervisor": ("/O=system:masters/CN=system:k3s-supervisor", "client-ca", "client"),
    "client-controller": ("/CN=system:kube-controller-manager", "client-ca", "client"),
    "client-scheduler": ("/CN=system:kube-scheduler", "client-ca", "client"),
    "client-kube-apiserver": ("/O=system:masters/CN=system:apiserver", "client-ca", "client"),
    "client-k3s-cloud-controller": ("/CN=k3s-cloud-controller-manager", "client-ca", "client"),
    "client-auth-proxy": ("/CN=system:auth-proxy", "request-header-ca", "client"),
    "serving-kube-apiserver": ("/CN=kube-apiserver", "server-ca", "server"),
    "kube-scheduler/kube-scheduler": ("/CN=kube-scheduler", "server-ca", "server"),
    "kube-controller-manager/kube-controller-manager": ("/CN=kube-controller-manager", "server-ca", "server"),
    "etcd/client": ("/CN=etcd-client", "etcd/server-ca", "client"),
    "etcd/server-client": ("/CN=etcd-server", "etcd/server-ca", "both"),
    "etcd/peer-server-client": ("/CN=etcd-peer", "etcd/peer-ca", "both"),
    "dynamic-cert": ("/O=k3s/CN=k3s", "server-ca", "server"),
}
KUBELET = """address: BIND
apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
  x509:
    clientCAFile: AGENT/client-ca.crt
authorization:
  mode: Webhook
healthzBindAddress: 127.0.0.1
kind: KubeletConfiguration
protectKernelDefaults: PROTECT
staticPodPath: AGENT/pod-manifests
streamingConnectionIdleTimeout: 4h0m0s
tlsCertFile: AGENT/serving-kubelet.crt
tlsPrivateKeyFile: AGENT/serving-kubelet.key
"""
CONTAINERD = """# File generated by k3s. DO NOT EDIT. Use config-v3.toml.tmpl instead.
version = 3
imports = ["BASE/agent/etc/containerd/config-v3.toml.d/*.toml"]
root = "BASE/agent/containerd"
state = "/run/k3s/containerd"
"""
NODE = socket.gethostname().lower()


def log(level, text):
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    quoted = json.dumps(text, ensure_ascii=False) if re.search(r"[^\w./-]", text) else text
    print("time=%s level=%s msg=%s" % (json.dumps(when), level, quoted), file=sys.stderr, flush=True)


def fatal(text):
    log("fatal", text)
    sys.exit(1)


def put(path, text="", mode=0o600, keep=False):
    """Write a file; its mode is set when it is made, and a mode that somebody narrowed later stays."""
    if keep and os.path.exists(path):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as made:
        made.write(text)


def read(path):
    with open(path) as found:
        return found.read()


# --- configuration ---------------------------------------------------------------------------------------------


def scalar(text):
    text = text.strip()
    if text[:1] == '"':
        return json.loads(text[: text.rindex('"') + 1])
    if text[:1] == "'":
        return text[1 : text.rindex("'")].replace("''", "'")
    text = re.sub(r"(^|\s)#.*", "", text).strip()
    return text.lower() if text.lower() in ("true", "false") else "" if text in ("~", "null") else text


def parse_yaml(text):
    """The YAML that a configuration of K3s needs: key: scalar or list; a plain scalar may go on in the next line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        item = re.match(r"\s*- (.*)", line)
        pair = re.match(r"(\"[^\"]+\"|'[^']+'|[\w.+-]+):(?:\s+(.*)|$)", line)
        if not line.strip() or re.match(r"\s*#|---|\.\.\.", line):
            continue
        if item and found and (isinstance(found[-1][1], list) or found[-1][1] == ""):
            found[-1][1] = (found[-1][1] or []) + [scalar(item.group(1))]
        elif pair:
            value = (pair.group(2) or "").strip()
            flow = re.match(r"\[(.*)\]\s*(#.*)?$", value)
            words = csv.reader([flow.group(1)], skipinitialspace=True, quotechar='"') if flow else []
            found.append([scalar(pair.group(1)), [scalar(w) for row in words for w in row] if flow else scalar(value)])
        elif line[0] in " \t" and found and found[-1][1]:
            value = found[-1][1]
            if isinstance(value, list):
                value[-1] += " " + scalar(line)
            else:
                found[-1][1] += " " + scalar(line)
        else:
            fatal("yaml: line %d: the double cannot read this" % number)
    return found


def config_args(command, path):
    """The configuration files as arguments: a repeated key replaces, key+ appends; a server skips unknown keys."""
    values = {}
    drops = [n for n in sorted(glob.glob(path + ".d/*")) if n.lower().endswith((".yaml", ".yml"))]
    for name in [path] * os.path.exists(path) + drops:
        for key, value in parse_yaml(read(name)):
            if key.endswith("+") and key[:-1] in values:
                old = values[key[:-1]]
                value = (old if isinstance(old, list) else [old]) + (value if isinstance(value, list) else [value])
            values[key.rstrip("+")] = value
    args = [("--" + k, v) for k, value in values.items() for v in (value if isinstance(value, list) else [value])]
    if command != "agent":
        known = names("server") if command == "server" else {"data-dir", "token", "server", "debug"}
        for flag in [f for f, _ in args if f[2:] not in known]:
            log("warning", "Unknown flag %s found in config.yaml, skipping\n" % flag)
        args = [(flag, value) for flag, value in args if flag[2:] in known]
    return ["%s=%s" % pair for pair in args]


def names(command):
    return set(" ".join(FLAGS[command].values()).split()) | set(FLAGS["aliases"])


def options(command, argv):
    """Flag -> value, or list of values; configuration first, so that the command line wins."""
    kinds = {n: kind for kind, words in FLAGS["agent" if command == "agent" else "server"].items() for n in words.split()}
    path = os.environ.get("K3S_CONFIG_FILE", "/etc/rancher/k3s/config.yaml")
    for i, arg in enumerate(argv):
        if re.match(r"(--config|-c)(=|$)", arg):
            path = arg.partition("=")[2] or argv[i + 1]
    args = config_args(command, path) + argv
    found = {"token": os.environ.get("K3S_TOKEN", ""), "server": os.environ.get("K3S_URL", "")}
    rest = []
    while args:
        match = re.match(r"--?([a-z0-9][\w-]*)(?:=(.*))?$", args.pop(0), re.S) if args[0][:1] == "-" else None
        if not match:
            rest.append(args.pop(0)) if args and args[0][:1] != "-" else None
            continue
        name, value = FLAGS["aliases"].get(match.group(1), match.group(1)), match.group(2)
        if name not in kinds and command in ("server", "agent"):
            print("Incorrect Usage: flag provided but not defined: -%s\n" % name)
            fatal("Error: flag provided but not defined: -%s" % name)
        if kinds.get(name) == "bool":
            found[name] = value != "false"
            continue
        value = value if value is not None else args.pop(0)
        if kinds.get(name) == "list":
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    for name in ("token", "agent-token"):
        if found.get(name + "-file"):
            try:
                found[name] = read(found[name + "-file"]).strip()
            except OSError as fault:
                fatal("Error: open %s: %s" % (fault.filename, fault.strerror.lower()))
    return found


# --- certificates ----------------------------------------------------------------------------------------------


def openssl(*args, **kwargs):
    try:
        return subprocess.run(["openssl", *args], check=True, capture_output=True, **kwargs).stdout
    except FileNotFoundError:
        return fatal("the double of K3s needs the program openssl")


def make_cert(path, subject, ca=None, usage="", names="", mode=0o644):
    """Make PATH.crt and PATH.key unless they are there; without `ca` a self-signed authority."""
    if os.path.exists(path + ".crt"):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    put(path + ".key")
    put(path + ".crt", mode=mode)
    extensions = ["subjectKeyIdentifier=hash", "basicConstraints=critical,CA:%s" % ("FALSE" if ca else "TRUE")]
    extensions += ["keyUsage=critical," + ("digitalSignature,keyEncipherment" if ca else "digitalSignature,keyCertSign")]
    extensions += ["extendedKeyUsage=" + usage] * bool(usage) + ["subjectAltName=" + names] * bool(names)
    signer = ["-CA", ca + ".crt", "-CAkey", ca + ".key"] if ca else []
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256",
        "-subj", subject, "-days", "365" if ca else "3650", "-keyout", path + ".key", "-out", path + ".crt",
        *signer, *[word for extension in extensions for word in ("-addext", extension)],
    )  # fmt: skip
    if ca:
        with open(path + ".crt", "a") as made:
            made.write(read(ca + ".crt"))


def kubeconfig(path, server, ca, cert):
    text = """apiVersion: v1
clusters:
- cluster:
    server: %s
    certificate-authority: %s
  name: local
contexts:
- context:
    cluster: local
    namespace: default
    user: user
  name: Default
current-context: Default
kind: Config
preferences: {}
users:
- name: user
  user:
    client-certificate: %s.crt
    client-key: %s.key
"""
    put(path, text % (server, ca, cert, cert))


def admin_kubeconfig(path, tls, port, mode):
    def data(name):
        return base64.b64encode(read(tls + name).encode()).decode()

    text = """apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: %s
    server: https://127.0.0.1:%s
  name: default
contexts:
- context:
    cluster: default
    user: default
  name: default
current-context: default
kind: Config
users:
- name: default
  user:
    client-certificate-data: %s
    client-key-data: %s
"""
    put(path, text % (data("/server-ca.crt"), port, data("/client-admin.crt"), data("/client-admin.key")))
    os.chmod(path, int(mode, 8))
    log("info", "Wrote kubeconfig " + path)


# --- listeners -------------------------------------------------------------------------------------------------


class Listener(http.server.ThreadingHTTPServer):
    """A port; with `tls` (certificate, authority of clients, whether one is required) it speaks TLS."""

    daemon_threads = True

    def __init__(self, address, answer, tls=None):
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.minimum_version = ssl.TLSVersion.TLSv1_2
            self.context.load_cert_chain(tls[0] + ".crt", tls[0] + ".key")
            self.context.load_verify_locations(tls[1])
            self.context.verify_mode = ssl.CERT_REQUIRED if tls[2] else ssl.CERT_OPTIONAL
        self.answer = answer
        super().__init__(address, Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def finish_request(self, request, client_address):
        request.settimeout(30)
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        answer = self.server.answer(self)
        code, kind, body = answer
        self.send_response_only(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET

    def subject(self):
        """What the client's certificate says, if there is one: {"commonName": …}."""
        found = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        return {key: value for part in (found or {}).get("subject", ()) for key, value in part}

    def log_message(self, *_):
        pass


def status(code, reason, message, api=True):
    fields = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    fields.update(reason=reason, code=code)
    if not api:
        del fields["apiVersion"]
    return code, "application/json", json.dumps(fields, indent=2)


def text(body, code=200):
    return code, "text/plain; charset=utf-8", body


FORBIDDEN = status(403, "Forbidden", 'forbidden: User "system:anonymous" cannot get path')


# --- components ------------------------------------------------------------------------------------------------


def merge(defaults, extra):
    """Flag -> values as K3s joins them: an item replaces K3s' default, repeated items add up."""
    given = {}
    for item in extra:
        name, _, value = item.lstrip("-").partition("=")
        clean = name.rstrip("-+")
        old = given.get(clean, [])
        first = [defaults[clean]] if clean in defaults and name != clean and not old else []
        new = [value if "=" in item else "true"]
        given[clean] = new + first + old if name.endswith("-") else first + old + new
    return {**{name: [value] for name, value in defaults.items()}, **given}


def announce(component, args):
    words = " ".join("--%s=%s" % (name, value) for name in sorted(args) for value in args[name])
    log("info", "Running %s %s" % (component, words))


def one(args, name, default=""):
    return args.get(name, [default])[-1]


def stop(component, why):
    """A component that does not start takes K3s along: before it is ready, and with exit code 0."""
    print("Error: " + why, file=sys.stderr)
    log("error", 'Shutdown request received: "%s exited: %s"' % (component, why.replace('"', '\\"')))
    sys.exit(0)


def check_apiserver(args):
    """The files without which an API server does not start."""
    admission, audit = one(args, "admission-control-config-file"), one(args, "audit-policy-file")
    if audit and not os.path.exists(audit):
        fault = 'failed to read file path "%s": open %s: no such file or directory' % (audit, audit)
        stop("apiserver", "loading audit policy file: " + fault)
    if admission and not os.path.exists(admission):
        fault = 'unable to read admission control configuration from "%s"' % admission
        fault += " [open %s: no such file or directory]" % admission
        stop("apiserver", "failed to apply admission: failed to read plugin config: " + fault)
    if "EventRateLimit" in one(args, "enable-admission-plugins").split(","):
        if not admission or not re.search(r"^[\s-]*limits:\s*($|\[\s*\S)", read(admission), re.M):
            fault = 'couldn\'t init admission plugin "EventRateLimit": limits: Invalid value: null: must not be empty'
            stop("apiserver", "failed to apply admission: " + fault)
    if one(args, "audit-log-path") not in ("", "-"):
        put(one(args, "audit-log-path"), keep=True)


class Node:
    """What a server and an agent have in common: the folder agent/, a kubelet and a kube-proxy."""

    def __init__(self, opts):
        self.opts = opts
        self.base = opts.get("data-dir") or os.environ.get("K3S_DATA_DIR") or "/var/lib/rancher/k3s"
        self.agent, self.tls = self.base + "/agent", self.base + "/server/tls"
        self.name = opts.get("node-name", NODE).lower()
        self.ip = (",".join(opts.get("node-ip", [])) or own_address()).split(",")[0]
        self.bind = opts.get("bind-address", "")
        self.listeners = []

    def listen(self, address, port, answer, tls=None):
        self.listeners.append(Listener((address, int(port)), answer, tls))

    def start(self, api):
        """Write agent/, start the kubelet's listeners, and say what runs; `api` is where the API is reached."""
        agent, opts = self.agent, self.opts
        for folder, mode in (
            ("/var/lib/kubelet", 0o750), (agent + "/etc/kubelet.conf.d", 0o700), (agent + "/pod-manifests", 0o750),
            (agent + "/containerd", 0o700), (agent + "/etc/cni/net.d", 0o700), (agent + "/etc/containerd", 0o755),
            ("/run/k3s", 0o711), ("/run/k3s/containerd", 0o711),
        ):  # fmt: skip
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            if not os.path.exists(folder):
                os.mkdir(folder, mode)
        ca = agent + "/server-ca.crt"
        for name, cert in (("kubelet", "kubelet"), ("kubeproxy", "kube-proxy"), ("k3scontroller", "k3s-controller")):
            kubeconfig("%s/%s.kubeconfig" % (agent, name), api, ca, "%s/client-%s" % (agent, cert))
        put(agent + "/etc/crictl.yaml", "runtime-endpoint: unix:///run/k3s/containerd/containerd.sock\n")
        put(agent + "/etc/containerd/config.toml", CONTAINERD.replace("BASE", self.base), 0o644)
        put(agent + "/etc/kubelet.conf.d/00-k3s-defaults.conf", self.kubelet_config())
        log("info", "Running containerd -c %s/etc/containerd/config.toml" % agent)
        self.containerd = socket.socket(socket.AF_UNIX)
        if os.path.exists("/run/k3s/containerd/containerd.sock"):
            os.unlink("/run/k3s/containerd/containerd.sock")
        self.containerd.bind("/run/k3s/containerd/containerd.sock")
        os.chmod("/run/k3s/containerd/containerd.sock", 0o660)
        self.containerd.listen()
        announce("kube-proxy", merge({
            "cluster-cidr": ",".join(opts.get("cluster-cidr", ["10.42.0.0/16"])), "conntrack-max-per-core": "0",
            "conntrack-tcp-timeout-close-wait": "0s", "conntrack-tcp-timeout-established": "0s",
            "healthz-bind-address": "127.0.0.1", "hostname-override": self.name,
            "kubeconfig": agent + "/kubeproxy.kubeconfig", "proxy-mode": "iptables",
        }, opts.get("kube-proxy-arg", [])))  # fmt: skip
        defaults = {
            "cloud-provider": "external", "config-dir": agent + "/etc/kubelet.conf.d",
            "containerd": "/run/k3s/containerd/containerd.sock", "hostname-override": self.name,
            "kubeconfig": agent + "/kubelet.kubeconfig", "node-ip": ",".join(opts.get("node-ip", [self.ip])),
            "node-labels": ",".join(opts.get("node-label", [])), "read-only-port": "0",
        }  # fmt: skip
        if opts.get("node-taint"):
            defaults["register-with-taints"] = ",".join(opts["node-taint"])
        kubelet = merge(defaults, opts.get("kubelet-arg", []))
        announce("kubelet", kubelet)

        def answer(request):
            if request.path == "/":
                return text("404 page not found\n", 404)
            if one(kubelet, "anonymous-auth") == "true" and not request.subject():
                return text("Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[proxy])", 403)
            return text("Unauthorized", 401) if not request.subject() else text("a double has no kubelet", 501)

        self.listen(self.bind or "::", 10250, answer, (agent + "/serving-kubelet", agent + "/client-ca.crt", False))
        for port in (10248, 10249, 10256, 10010):
            self.listen("127.0.0.1", port, lambda _: text("ok"))
        if opts.get("flannel-backend", "vxlan") == "vxlan":
            self.vxlan = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.vxlan.bind(("0.0.0.0", 8472))

    def kubelet_config(self):
        protect = str(bool(self.opts.get("protect-kernel-defaults"))).lower()
        return KUBELET.replace("AGENT", self.agent).replace("BIND", self.bind or "0.0.0.0").replace("PROTECT", protect)

    def ready(self, kind):
        """Tell systemd, take K3s' title, and wait for the end."""
        set_title(os.environ.get("K3S_DOUBLE_TITLE", "k3s " + kind), "k3s-" + kind)
        log("info", "k3s %sis up and running" % ("agent " if kind == "agent" else ""))
        if os.environ.get("NOTIFY_SOCKET"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
                systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
        while True:
            signal.pause()


def own_address():
    """The address that a packet to elsewhere would leave from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]


def set_title(title, comm):
    """Overwrite the arguments that /proc shows, as K3s does to keep secrets off it, and the command's name."""
    libc = ctypes.CDLL(None)
    libc.prctl(15, comm.encode(), 0, 0, 0)  # PR_SET_NAME
    fields = read("/proc/self/stat").rpartition(")")[2].split()
    start, size = int(fields[45]), int(fields[46]) - int(fields[45])
    ctypes.memset(start, 0, size)
    ctypes.memmove(start, title.encode()[: size - 1], min(len(title.encode()), size - 1))


# --- joining ---------------------------------------------------------------------------------------------------


def fetch(url, ca, user="", password=""):
    """Ask a server; without `ca` its certificate is not judged (as for /cacerts alone)."""
    context = ssl.create_default_context(cadata=ca) if ca else ssl._create_unverified_context()  # noqa: S323
    request = urllib.request.Request(url)
    if user:
        word = base64.b64encode(("%s:%s" % (user, password)).encode()).decode()
        request.add_header("Authorization", "Basic " + word)
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:
        return answer.read().decode()


def trust(server, token):
    """The authority of a cluster, held against the hash in a full token; raises ValueError."""
    try:
        ca = fetch(server + "/cacerts", None)
    except OSError as fault:
        raise ValueError("failed to get CA certs: Get \"%s/cacerts\": %s" % (server, fault)) from fault
    want, have = re.match(r"K10([0-9a-f]{64})::", token), hashlib.sha256(ca.encode()).hexdigest()
    if want and want.group(1) != have:
        raise ValueError(
            "token CA hash does not match the Cluster CA certificate hash: %s != %s" % (want.group(1), have)
        )
    if not want:
        log("warning", "Cluster CA certificate is not trusted by the host CA bundle, but the token does not include "
            "a CA hash. Use the full token from the server's node-token file to enable Cluster CA validation.")  # fmt: skip
    return ca


def secret_of(token):
    return token.rpartition(":")[2] if "::" in token else token


LEAVES = {
    "serving-kubelet": ("/CN=%s", "serverAuth"),
    "client-kubelet": ("/O=system:nodes/CN=system:node:%s", "clientAuth"),
    "client-kube-proxy": ("/CN=system:kube-proxy", "clientAuth"),
    "client-k3s-controller": ("/CN=system:k3s-controller", "clientAuth"),
}


class Agent(Node):
    """`k3s agent`: it waits for ever for a server that knows its token."""

    def run(self):
        for name in ("token", "server"):
            if not self.opts.get(name):
                fatal("Error: --%s is required" % name)
        server, token = self.opts["server"].rstrip("/"), self.opts["token"]
        log("info", "Starting k3s agent %s (double)" % VERSION)
        put("/etc/rancher/node/password", secrets.token_hex(16) + "\n", keep=True)
        while True:
            try:
                ca = trust(server, token)
                self.join(server, ca, secret_of(token))
                break
            except ValueError as fault:
                log("error", "Failed to validate connection to cluster at %s: %s" % (server, fault))
            except urllib.error.HTTPError:
                log("info", "Waiting to retrieve agent configuration; server is not ready: "
                    "failed to retrieve configuration from server: not authorized")  # fmt: skip
            except OSError as fault:
                log("info", "Waiting to retrieve agent configuration; server is not ready: %s" % fault)
            time.sleep(5)
        for address in ("127.0.0.1", "::1"):
            self.listen(address, 6444, lambda _: status(503, "ServiceUnavailable", "a double forwards nothing"))
        self.start("https://127.0.0.1:6444")
        self.ready("agent")

    def join(self, server, ca, password):
        """Fetch this node's certificates; a node that has them needs no right token any more."""
        if not os.path.exists(self.agent + "/client-kubelet.crt"):
            for name in LEAVES:
                url = "%s/v1-k3s/%s.crt?node=%s&ip=%s" % (server, name, self.name, self.ip)
                made = json.loads(fetch(url, ca, "node", password))
                for end in ("key", "crt"):
                    put("%s/%s.%s" % (self.agent, name, end), made[end])
            put(self.agent + "/client-ca.crt", made["ca"])
        put(self.agent + "/server-ca.crt", ca)


class Server(Node):
    """`k3s server`: the agent's part and the control plane's files, ports and journal lines."""

    def run(self):
        opts, tls, base = self.opts, self.tls, self.base + "/server"
        self.port = opts.get("https-listen-port", "6443")
        self.etcd = bool(opts.get("cluster-init") or opts.get("server") or os.path.exists(base + "/db/etcd"))
        log("info", "Starting k3s %s (double)" % VERSION)
        os.makedirs(self.base, exist_ok=True)
        for folder in ("", "/cred", "/db", "/etc", "/manifests", "/static", "/tls", "/tls/temporary-certs"):
            if not os.path.exists(base + folder):
                os.mkdir(base + folder, 0o700)
        if opts.get("server"):
            self.join()
        self.certificates()
        self.tokens()
        for name, cert in KUBECONFIGS.items():
            path = "%s/cred/%s.kubeconfig" % (base, name)
            kubeconfig(path, "https://127.0.0.1:6444", tls + "/server-ca.crt", "%s/client-%s" % (tls, cert))
        put(base + "/cred/ipsec.psk", secrets.token_hex(48) + "\n", keep=True)
        put("/etc/rancher/node/password", secrets.token_hex(16) + "\n", keep=True)
        put(base + "/manifests/rolebindings.yaml", "# a double applies nothing\n")
        provider = opts.get("secrets-encryption-provider", "aescbc")
        if opts.get("secrets-encryption") and not os.path.exists(base + "/cred/encryption-config.json"):
            key = {"name": provider + "key", "secret": base64.b64encode(os.urandom(32)).decode()}
            rule = {"resources": ["secrets"], "providers": [{provider: {"keys": [key]}}, {"identity": {}}]}
            config = {"kind": "EncryptionConfiguration", "apiVersion": "apiserver.config.k8s.io/v1"}
            put(base + "/cred/encryption-config.json", json.dumps({**config, "resources": [rule]}))
            put(base + "/cred/encryption-state.json", "start")
        if self.etcd:
            os.makedirs(base + "/db/snapshots", mode=0o700, exist_ok=True)
            for folder in ("", "/member", "/member/snap", "/member/wal"):
                if not os.path.exists(base + "/db/etcd" + folder):
                    os.mkdir(base + "/db/etcd" + folder, 0o700)
            put(base + "/db/etcd/name", "%s-%s" % (self.name, secrets.token_hex(4)), keep=True)
            put(base + "/db/etcd/config", "data-dir: %s/db/etcd\n" % base)
            put(base + "/db/etcd/member/snap/db", "a double stores nothing\n", keep=True)
            health = text('{"health":"true","reason":""}')
            for address in ("127.0.0.1", self.ip):
                for port, cert, ca in ((2379, "server-client", "server-ca"), (2380, "peer-server-client", "peer-ca")):
                    etcd = (tls + "/etcd/" + cert, "%s/etcd/%s.crt" % (tls, ca), True)
                    self.listen(address, port, lambda _: health, etcd)
                if address == "127.0.0.1" or opts.get("etcd-expose-metrics"):
                    self.listen(address, 2381, lambda _: health)
            self.listen("127.0.0.1", 2382, lambda _: health, etcd)
        else:
            put(base + "/db/state.db", "a double stores nothing\n", 0o644, keep=True)
        apiserver = self.control_plane()
        context = (tls + "/serving-kube-apiserver", tls + "/client-ca.crt", False)
        answer = functools.partial(self.answer, one(apiserver, "anonymous-auth") == "true")
        self.listen("127.0.0.1", 6444, answer, context)
        self.listen(self.bind or "::", self.port, answer, (tls + "/dynamic-cert", *context[1:]))
        for port, cert in ((10257, "kube-controller-manager"), (10258, ""), (10259, "kube-scheduler")):
            path = "%s/%s/%s" % (tls, cert, cert) if cert else context[0]
            self.listen("127.0.0.1", port, lambda r: text("ok") if r.path == "/healthz" else FORBIDDEN, (path, *context[1:]))
        admin_kubeconfig(
            opts.get("write-kubeconfig", "/etc/rancher/k3s/k3s.yaml"), tls, self.port,
            opts.get("write-kubeconfig-mode", "0600"),
        )  # fmt: skip
        if not opts.get("disable-agent"):
            for name in ("server-ca.crt", "client-ca.crt"):
                put("%s/%s" % (self.agent, name), read("%s/%s" % (tls, name)))
            for name in LEAVES:
                self.leaf(name, self.agent, self.name, self.ip)
            self.start("https://127.0.0.1:%s" % self.port)
        self.ready("server")

    def certificates(self):
        tls, now = self.tls, int(time.time())
        for name in ("client-ca", "server-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca"):
            common = ("" if "etcd" in name else "k3s-") + name.replace("/", "-")
            make_cert("%s/%s" % (tls, name), "/CN=%s@%d" % (common, now))
        for name in ("client-ca", "server-ca"):
            put("%s/%s.nochain.crt" % (tls, name), read("%s/%s.crt" % (tls, name)), 0o644, keep=True)
        alt = "DNS:kubernetes,DNS:kubernetes.default,DNS:localhost,DNS:%s,IP:127.0.0.1,IP:10.43.0.1,IP:%s"
        alt = alt % (self.name, self.ip)
        for extra in self.opts.get("tls-san", []):
            alt += ",%s:%s" % ("IP" if re.match(r"[\d.]+$|.*:", extra) else "DNS", extra)
        for path, (subject, ca, usage) in CERTIFICATES.items():
            usages = {"client": "clientAuth", "server": "serverAuth", "both": "serverAuth,clientAuth"}[usage]
            mode = 0o600 if path == "dynamic-cert" else 0o644
            make_cert(tls + "/" + path, subject, tls + "/" + ca, usages, "" if usage == "client" else alt, mode)
        if not os.path.exists(tls + "/service.key"):
            key = openssl("genrsa", "2048").decode()
            put(tls + "/service.key", key)
            put(tls + "/service.current.key", key)

    def leaf(self, name, folder, node, ip):
        subject, usage = LEAVES[name]
        ca = "%s/%s-ca" % (self.tls, name.split("-")[0].replace("serving", "server"))
        alt = "DNS:%s,DNS:localhost,IP:127.0.0.1,IP:%s" % (node, ip) if usage == "serverAuth" else ""
        make_cert("%s/%s" % (folder, name), subject.replace("%s", node), ca, usage, alt, 0o600)

    def tokens(self):
        """Write the tokens with the authority's hash; a cluster refuses a token other than its own."""
        base, hashed = self.base + "/server", hashlib.sha256(read(self.tls + "/server-ca.crt").encode()).hexdigest()
        given, old = secret_of(self.opts.get("token", "")), ""
        if os.path.exists(base + "/token"):
            old = secret_of(read(base + "/token").strip())
        if old and given and old != given:
            fatal("Error: preparing server: failed to bootstrap cluster data: failed to reconcile with local "
                  "datastore: bootstrap data already found and encrypted with different token")  # fmt: skip
        self.secrets = {"server": old or given or secrets.token_hex(16)}
        self.secrets["node"] = secret_of(self.opts.get("agent-token", "")) or self.secrets["server"]
        put(base + "/token", "K10%s::server:%s\n" % (hashed, self.secrets["server"]))
        for link in ("node-token", "agent-token"):
            if os.path.lexists(base + "/" + link):
                os.unlink(base + "/" + link)
            if link == "node-token" or self.secrets["node"] == self.secrets["server"]:
                os.symlink(base + "/token", base + "/" + link)
            else:
                put(base + "/" + link, "K10%s::node:%s\n" % (hashed, self.secrets["node"]))
        rows = ["%s,%s,%s,k3s:%s\n" % (self.secrets[n], n, n, n.replace("node", "agent")) for n in ("node", "server")]
        put(base + "/cred/passwd", "".join(rows))

    def join(self):
        """Fetch the cluster's authorities from the server that is there already."""
        if os.path.exists(self.tls + "/server-ca.key"):
            return
        server, token = self.opts["server"].rstrip("/"), self.opts.get("token", "")
        try:
            ca = trust(server, token)
            bundle = json.loads(fetch(server + "/v1-k3s/server-bootstrap", ca, "server", secret_of(token)))
        except urllib.error.HTTPError:
            fatal("Error: preparing server: failed to bootstrap cluster data: not authorized")
        except (OSError, ValueError) as fault:
            fatal("Error: preparing server: failed to bootstrap cluster data: %s" % fault)
        for name, content in bundle.items():
            put("%s/server/%s" % (self.base, name), content, 0o644 if name.endswith(".crt") else 0o600)

    def answer(self, anonymous, request):
        """What 6443 says: the supervisor's paths, and of an API only what may be asked without one."""
        path, _, query = request.path.partition("?")
        if path == "/ping":
            return text("pong")
        if path == "/cacerts":
            return text(read(self.tls + "/server-ca.crt"))
        if path.startswith("/static/"):
            return 200, "text/html; charset=utf-8", "<!doctype html>\n<pre>\n</pre>\n"
        if path.startswith("/v1-k3s/"):
            return self.supervisor(path[8:], dict(urllib.parse.parse_qsl(query)), request.headers.get("Authorization"))
        if not request.subject():
            if not anonymous:
                return status(401, "Unauthorized", "Unauthorized")
            if path not in ("/healthz", "/livez", "/readyz", "/version"):
                return FORBIDDEN
        if path == "/version":
            return 200, "application/json", json.dumps({"gitVersion": VERSION, "platform": "double"})
        if path in ("/healthz", "/livez", "/readyz"):
            return text("ok")
        return status(501, "NotImplemented", "this is a double of K3s: it has no API")

    def supervisor(self, name, query, authorization):
        if not authorization:
            return status(403, "Forbidden", "forbidden", api=False)
        user, _, password = base64.b64decode(authorization.partition(" ")[2]).decode().partition(":")
        known = self.secrets["server"] if name == "server-bootstrap" else self.secrets.get(user, "")
        allowed = [known, self.secrets["server"]] if known else []
        if not any(hmac.compare_digest(password, secret) for secret in allowed):
            return status(401, "Unauthorized", "not authorized", api=False)
        if name == "server-bootstrap":
            paths = glob.glob(self.tls + "/**/*-ca*", recursive=True) + glob.glob(self.tls + "/service*.key")
            paths += glob.glob(self.base + "/server/cred/encryption-*")
            made = {os.path.relpath(path, self.base + "/server"): read(path) for path in paths}
        elif name[: -len(".crt")] in LEAVES and re.fullmatch(r"[a-z0-9.-]+", query["node"]):
            with tempfile.TemporaryDirectory() as folder:
                leaf = name[: -len(".crt")]
                self.leaf(leaf, folder, query["node"], str(ipaddress.ip_address(query["ip"])))
                made = {end: read("%s/%s.%s" % (folder, leaf, end)) for end in ("key", "crt")}
            made["ca"] = read(self.tls + "/client-ca.crt")
        else:
            return status(404, "NotFound", "the double does not know this", api=False)
        return 200, "application/json", json.dumps(made)

    def control_plane(self):
        """Say what runs, with K3s' defaults; refuse what an API server refuses. Returns the API server's flags."""
        opts, server, tls = self.opts, self.base + "/server", self.tls
        cluster, service = (",".join(opts.get(k + "-cidr", [d])) for k, d in CIDRS)
        values = {"SERVER": server, "TLS": tls, "CLUSTER": cluster, "SERVICE": service, "IP": self.ip,
                  "PORT": self.port, "CIPHERS": CIPHERS, "RANGE": opts.get("service-node-port-range", "30000-32767"),
                  "DOMAIN": opts.get("cluster-domain", "cluster.local")}  # fmt: skip
        made = {}
        for component, lines in COMPONENTS.items():
            if component == "kube-apiserver":
                lines += ETCD if self.etcd else " etcd-servers=unix://kine.sock"
                if os.path.exists(server + "/cred/encryption-config.json"):
                    lines += ENCRYPTION
            words = [word.partition("=") for word in re.sub("|".join(values), lambda m: values[m[0]], lines).split()]
            given = opts.get(component + "-arg", []) + opts.get(component.replace("-manager", "") + "-arg", []) * (
                component == "kube-controller-manager"
            )
            made[component] = merge({name: value for name, _, value in words}, given)
            announce(component, made[component])
            if component == "kube-apiserver":
                check_apiserver(made[component])
        return made["kube-apiserver"]


# --- other commands --------------------------------------------------------------------------------------------


def kubectl(argv):
    """Only `get --raw PATH` with K3s' kubeconfig."""
    if argv[:2] != ["get", "--raw"]:
        sys.exit("error: this is a double of K3s: kubectl can only get --raw, and there is no API")
    try:
        config = read(os.environ.get("KUBECONFIG", "/etc/rancher/k3s/k3s.yaml"))
    except OSError as fault:
        sys.exit("error: %s" % fault)
    with tempfile.NamedTemporaryFile("w") as pair:
        parts = [base64.b64decode(part).decode() for part in re.findall(r"-data: (\S+)", config)]
        pair.write(parts[1] + parts[2])
        pair.flush()
        context = ssl.create_default_context(cadata=parts[0])
        context.load_cert_chain(pair.name)
    try:
        with urllib.request.urlopen(re.search(r"server: (\S+)", config)[1] + argv[2], context=context) as answer:
            sys.stdout.write(answer.read().decode())
    except OSError as fault:
        sys.exit("Error from server: %s" % fault)


def secrets_encrypt(argv, base, opts):
    if argv[:1] != ["status"]:
        fatal("Error: the double of K3s knows only: secrets-encrypt status")
    try:
        fetch("https://127.0.0.1:%s/cacerts" % opts.get("https-listen-port", "6443"), None)
        config = json.loads(read(base + "/server/cred/encryption-config.json"))
    except FileNotFoundError:
        config = None
    except OSError as fault:
        fatal("Error: see server log for details: %s" % fault)
    found = {"stage": "", "activekey": ""}
    if config:
        provider, body = next(iter(config["resources"][0]["providers"][0].items()))
        kind = {"aescbc": "AES-CBC", "secretbox": "XSalsa20-POLY1305"}.get(provider, provider)
        key = "%s %s" % (kind, body["keys"][0]["name"])
        found = {"stage": read(base + "/server/cred/encryption-state.json").partition("-")[0], "activekey": key}
        found.update(enable=True, hashmatch=True)
    if opts.get("output") == "json":
        print(json.dumps(found, indent="\t"))
    elif not config:
        print("Encryption Status: Disabled, no configuration file found")
    else:
        print("Encryption Status: Enabled\nCurrent Rotation Stage: %s" % found["stage"])
        print("Server Encryption Hashes: All hashes match\n\nActive  Key Type           Name")
        print("------  --------           ----\n *      %-18s %s\n" % tuple(found["activekey"].split()))


def certificate(argv, base, opts):
    if argv[:1] != ["check"]:
        fatal("Error: the double of K3s knows only: certificate check")
    server = os.path.exists(base + "/server/tls")
    log("info", "%s detected, checking agent and server certificates" % ("Server" if server else "Agent"))
    found = []
    paths = glob.glob(base + "/server/tls/**/*.crt", recursive=True) + glob.glob(base + "/agent/*.crt")
    for path in [p for p in paths if "-ca." not in p and not p.endswith("dynamic-cert.crt")]:
        seen = ssl._ssl._test_decode_cert(path)  # the only reader of certificates in the standard library
        subject, issuer = (dict(part[0] for part in seen[side])["commonName"] for side in ("subject", "issuer"))
        end = ssl.cert_time_to_seconds(seen["notAfter"])
        left = end - time.time()
        state = "EXPIRED" if left < 0 else "WARNING" if left < 120 * 86400 else "OK"
        name = os.path.basename(path)
        usage = ["ClientAuth"] if re.match(r"client[-.]", name) else ["ServerAuth"]
        usage += ["ClientAuth"] if name.endswith("server-client.crt") else []
        found.append({"Filename": name, "Subject": subject, "Issuer": issuer, "Usages": usage,
                      "ExpiryTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end)),
                      "ResidualTime": int(left * 1e9), "Status": state})  # fmt: skip
    if opts.get("output") == "json":
        print(json.dumps({"Certificates": found}))
        return
    for one_ in found:
        word = "is ok, expires at" if one_["Status"] == "OK" else "expires or has expired at"
        log("info", "%(Filename)s: certificate %(Subject)s " % one_ + word + " " + one_["ExpiryTime"])


def snapshot(argv, base, opts):
    folder = opts.get("etcd-snapshot-dir") or base + "/server/db/snapshots"
    if not os.path.isdir(base + "/server/db/etcd"):
        fatal("Error: etcd datastore disabled")
    if argv[:1] in ([], ["save"]):
        name = "%s-%s-%d" % (opts.get("name", "on-demand"), NODE, time.time())
        put(folder + "/" + name, "a double stores nothing\n")
        log("info", "Snapshot %s saved." % name)
    elif argv[:1] in (["ls"], ["list"]):
        print("Name Location Size Created")
        for path in sorted(glob.glob(folder + "/*")):
            made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(os.path.getmtime(path)))
            print(os.path.basename(path), "file://" + path, os.path.getsize(path), made)
    else:
        fatal("Error: the double of K3s knows only: etcd-snapshot save, etcd-snapshot ls")


def token(argv, base, _):
    if argv[:1] not in (["list"], ["generate"], ["create"]):
        fatal("Error: the double of K3s knows only: token list, token generate, token create")
    if argv[0] == "list":
        print("TOKEN     TTL       EXPIRES   USAGES    DESCRIPTION   EXTRA GROUPS")
        return
    made = "%s.%s" % (secrets.token_hex(3), secrets.token_hex(8))
    print(made if argv[0] == "generate" else read(base + "/server/token").partition("::")[0] + "::" + made)


def main():
    command, argv = sys.argv[1], sys.argv[2:]
    if command == "kubectl":
        return kubectl(argv)
    opts = options(command, argv)
    base = opts.get("data-dir") or os.environ.get("K3S_DATA_DIR") or "/var/lib/rancher/k3s"
    others = {"secrets-encrypt": secrets_encrypt, "certificate": certificate, "etcd-snapshot": snapshot, "token": token}
    if command in others:
        words = [word for word in argv if not word.startswith("-") and word != opts.get("output")]
        try:
            return others[command](words, base, opts)
        except OSError as fault:
            return fatal("Error: open %s: %s" % (fault.filename, (fault.strerror or "").lower()))
    if command not in ("server", "agent"):
        fatal("Error: the double of K3s has no command %s" % command)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    return {"server": Server, "agent": Agent}[command](opts).run()


os.umask(0o022)
main()
