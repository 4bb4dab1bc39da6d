"""The peers: what each is, how it is started, and how it is told of new keys."""
import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import keys
import processes
from load import CACHE
from processes import HOST

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TEMPLATES = os.path.join(HERE, "peers")
EXTRA = "sk_of_a_reload"  # the key that comes and goes in a reload


def first(*patterns):
    """The first of these that is there and can be run."""
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)):
            if os.access(path, os.X_OK):
                return path
    return None


def said(argv):
    """The first line that a program says."""
    try:
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        return (ended.stdout + ended.stderr).strip().splitlines()[0]
    except (OSError, IndexError, subprocess.SubprocessError):
        return "not found"


def fill(template, target, words):
    """Writes a template with its @WORDS@ filled in."""
    with open(os.path.join(TEMPLATES, template), encoding="utf-8") as file:
        text = file.read()
    for word, value in words.items():
        text = text.replace(f"@{word}@", str(value))
    left = re.findall(r"@[A-Z0-9]+@", text)
    if left:
        raise SystemExit(f"{template}: not filled in: {sorted(set(left))}")
    with open(target, "w", encoding="utf-8") as file:
        file.write(text)


def nginx_version():
    return said(["nginx", "-v"]).removeprefix("nginx version: ").replace("/", " ")


def haproxy_version():
    return "haproxy " + said(["haproxy", "-v"]).split("version ")[-1].split()[0]


class Peer:
    """One proxy. Subclasses say what differs."""

    checks = True  # asks for keys and scopes
    h2c = True  # speaks HTTP/2 in plaintext
    channels = True  # passes WebSockets
    encrypts = True  # speaks TLS, with HTTP/1.1 and HTTP/2 behind it
    restart_limit = 20  # seconds
    keys_file = None  # in its folder; what a reload changes
    reload_signal = None  # what makes it look; without one it watches the file

    def __init__(self, name, port, lab):
        self.name, self.lab = name, lab
        self.folder = os.path.join(lab.work, name)
        self.http, self.h2, self.ws, self.tls = port, port, port, port + 2
        self.process, self.start_ms = None, 0

    def argv(self):
        """The command that starts it, its files written; None where it is not installed."""
        raise NotImplementedError

    def version(self):
        """What it is made of, and its number."""
        raise NotImplementedError

    def extra_row(self):
        """The line of the keys file for a key more."""
        return ""

    def words(self):
        return {"THREADS": self.lab.threads, "HTTP": self.http, "H2C": self.h2, "WS": self.ws, "TLS": self.tls,
                "CERTIFICATE": self.lab.certificate, "KEY": self.lab.private_key, "BOTH": self.lab.both,
                "UPSTREAM": self.lab.upstream, "WEBHOOKS": self.lab.webhooks, "TUNNEL": self.lab.tunnel,
                "BIG": self.lab.big}

    def conf(self, template, **more):
        path = os.path.join(self.folder, template.removesuffix(".in"))
        fill(template, path, {**self.words(), **more})
        return path

    def copy_keys(self, table):
        """A table of its own: a reload changes it."""
        self.keys_file = table
        return shutil.copy(self.lab.keys.path(table), os.path.join(self.folder, table))

    def start(self):
        """Why it did not start, or None."""
        os.makedirs(self.folder, exist_ok=True)
        argv = self.argv()
        if not argv:
            return "not installed"
        began = time.monotonic()
        self.process = processes.start(argv, self.lab.peer_core, os.path.join(self.folder, "output"))
        if not processes.wait_port(self.http, self.process, self.restart_limit):
            with open(os.path.join(self.folder, "output"), encoding="utf-8", errors="replace") as file:
                why = file.read()[-500:].strip()
            self.stop()
            return f"did not start: {why}"
        self.start_ms = (time.monotonic() - began) * 1000
        time.sleep(0.2)
        return None

    def stop(self):
        if self.process:
            processes.stop(self.process)

    def restart(self):
        self.stop()
        why = self.start()
        if why:
            raise RuntimeError(why)

    def pids(self):
        return processes.tree(self.process.pid)

    def forget_log(self):
        """An access log would grow by gigabytes in a run."""
        with contextlib.suppress(OSError):
            os.truncate(os.path.join(self.folder, "access.log"), 0)

    def put_keys(self, more):
        """A key more than at the start, or as many: a new file in the place of the old one, as an operator would."""
        table = os.path.join(self.folder, self.keys_file)
        versions = {False: table + ".less", True: table + ".more"}
        if not os.path.exists(versions[True]):
            for version in versions.values():
                shutil.copy(table, version)
            with open(versions[True], "a", encoding="utf-8") as file:
                file.write(self.extra_row())
        shutil.copy(versions[more], table + ".new")
        os.replace(table + ".new", table)
        if self.reload_signal:
            os.kill(self.process.pid, self.reload_signal)

    @contextlib.contextmanager
    def reloads(self):
        """Every second a key more or a key less, until the body ends; gives a list that has an entry a reload."""
        over, done = threading.Event(), []

        def again():
            while not over.wait(1):
                self.put_keys(more=len(done) % 2 == 0)
                done.append(time.monotonic())

        thread = threading.Thread(target=again)
        thread.start()
        try:
            yield done
        finally:
            over.set()
            thread.join()
            self.put_keys(more=False)
            time.sleep(1)  # for workers of before, which end


class Direct(Peer):
    """The upstream itself, on the core of the peers."""

    checks = h2c = channels = encrypts = False

    def argv(self):
        binary = shutil.which("nginx")
        return binary and [binary, "-p", self.folder, "-c",
                           self.conf("upstream.conf.in", WEBHOOKS=self.http + 5)]

    def version(self):
        return nginx_version()


class Nginx(Peer):
    reload_signal = signal.SIGHUP
    log = "off"

    def __init__(self, name, port, lab):
        super().__init__(name, port, lab)
        self.h2 = port + 1

    def argv(self):
        binary = shutil.which("nginx")
        table = self.copy_keys("keys.nginx")
        return binary and [binary, "-p", self.folder, "-c", self.conf("nginx.conf.in", KEYS=table, LOG=self.log)]

    def version(self):
        return nginx_version()

    def extra_row(self):
        return keys.nginx(EXTRA, ["READ_TEAM_APPS"])


class NginxLogs(Nginx):
    """The same with a line a request, written in pieces of 64 KiB, as scopegate does."""

    log = "access.log facts buffer=64k flush=1s"


class Haproxy(Peer):
    reload_signal = signal.SIGUSR2

    def __init__(self, name, port, lab):
        super().__init__(name, port, lab)
        self.h2 = port + 1

    def argv(self):
        binary = shutil.which("haproxy")
        table = self.copy_keys("keys.haproxy")
        # With a master, as Debian's unit starts it: that is what can reload.
        return binary and [binary, "-W", "-db", "-q", "-f", self.conf("haproxy.cfg.in", KEYS=table)]

    def version(self):
        return haproxy_version()

    def extra_row(self):
        return keys.haproxy(EXTRA, ["READ_TEAM_APPS"])


class HaproxyTcp(Peer):
    checks = h2c = encrypts = False

    def __init__(self, name, port, lab):
        super().__init__(name, port, lab)
        self.ws = port + 1

    def argv(self):
        binary = shutil.which("haproxy")
        return binary and [binary, "-db", "-q", "-f", self.conf("haproxy-tcp.cfg.in")]

    def version(self):
        return haproxy_version()


class Envoy(Peer):
    encrypts = False

    def binary(self):
        return first(f"{CACHE}/venv/lib/python3*/site-packages/envoy/_bin/envoy") or shutil.which("envoy")

    def argv(self):
        conf = self.conf("envoy.yaml.in", **keys.envoy(self.lab.keys.rows))
        return self.binary() and [self.binary(), "-c", conf, "--concurrency", str(self.lab.threads), "-l", "error",
                                  "--use-dynamic-base-id", "--disable-hot-restart"]

    def version(self):
        return "envoy " + said([self.binary(), "--version"]).split("version: ")[-1].split("/")[1]


class HyperKeys(Peer):
    channels = encrypts = False

    def argv(self):
        binary = first(f"{CACHE}/hyper-keys/release/peer-hyper-keys")
        return binary and [binary, str(self.lab.threads), f"{HOST}:{self.http}", f"{HOST}:{self.lab.upstream}",
                           f"{HOST}:{self.lab.webhooks}", self.lab.keys.path("keys.tsv")]

    def version(self):
        with open(f"{TEMPLATES}/hyper-keys/Cargo.lock", encoding="utf-8") as file:
            return "hyper " + re.search(r'name = "hyper"\nversion = "(.*?)"', file.read()).group(1)


class Scopegate(Peer):
    keys_file = "config/scopegate-keys.yaml"
    restart_limit = 900  # the first start may have to build it
    options = ()

    def argv(self):
        lab = self.lab
        return [f"{ROOT}/benches/candidate", "--http", str(self.http), "--upstream", f"{HOST}:{lab.upstream}",
                "--webhooks", f"{HOST}:{lab.webhooks}", "--tunnel", f"{HOST}:{lab.tunnel}",
                "--tls", str(self.tls), "--cert", lab.certificate, "--key", lab.private_key,
                "--keys", lab.keys.path("keys.json"), "--threads", str(lab.threads), "--work", self.folder,
                *self.options]

    def version(self):
        target = os.environ.get("CARGO_TARGET_DIR") or f"{ROOT}/target"
        number = said([f"{target}/release/scopegate", "--version"])
        commit = said(["git", "-C", ROOT, "describe", "--always", "--dirty"])
        return number if "fatal" in commit or commit == "not found" else f"{number} ({commit})"

    def extra_row(self):
        digest = hashlib.sha256(EXTRA.encode()).hexdigest()
        row = {"id": "extra", "team": "bench", "digest": f"sha256:{digest}", "scopes": ["READ_TEAM_APPS"]}
        return f"  - {json.dumps(row)}\n"


class ScopegateOff(Scopegate):
    """Without what a user can switch off."""

    options = ("--off",)


KINDS = {
    "scopegate": Scopegate,
    "scopegate-off": ScopegateOff,
    "nginx": Nginx,
    "nginx-logs": NginxLogs,
    "haproxy": Haproxy,
    "envoy": Envoy,
    "hyper-keys": HyperKeys,
    "haproxy-tcp": HaproxyTcp,
    "direct": Direct,
}
