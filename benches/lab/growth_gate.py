"""A scopegate of a given size, with everything switched on as benches/candidate does it, and what it says of itself."""
import hashlib
import http.client
import os
import re
import shutil
import socket
import time

import processes

KEYS = 1000  # of a gate whose keys are not what grows
SCOPES = ("READ_TEAM_APPS", "READ_CALL_TOKEN", "CREATE_CALL_TOKEN")
KEYS_OF_A_TEAM = 100
LIMITS = {"connections": 10_000, "in_flight": 4096}  # scopegate's own, of a gate that is not asked for more

CONFIG = """\
listen: [{{ address: 127.0.0.1:{port} }}]
admin: {{ address: 127.0.0.1:{admin} }}
workers: 1
log: {{ access: true, events: json }}
trusted_proxies: [127.0.0.1]
upstreams: {{ telapi: {{ address: 127.0.0.1:{upstream} }} }}
flags: {{ webrtc: true, apiAccess: true }}
scopes: [CREATE_CALL_TOKEN, READ_CALL_TOKEN, READ_TEAM_APPS]
keys: {{ file: {keys} }}
timeouts: {{ connect: 2s, first_byte: 30s, idle: 60s, tunnel: 120s, pool: 4s }}
limits: {{ connections: {connections}, in_flight: {in_flight} }}
drain: {{ delay: 0s, grace: 1s }}
surfaces:
  sdk:
    access: key
    flags: [webrtc, apiAccess]
    routes:
      GET /api/v1/apps: READ_TEAM_APPS
"""


class Trouble(Exception):
    """What made a point impossible to measure: told in the report, and the others go on."""


def key_of(number):
    return "sgk_" + hashlib.sha256(b"growth %d" % number).hexdigest()[:40]


def free_port():
    with socket.socket() as probe:
        probe.bind((processes.HOST, 0))
        return probe.getsockname()[1]


def write_keys(path, count):
    with open(path, "w") as file:
        file.write("teams:\n")
        for team in range(max(1, count // KEYS_OF_A_TEAM)):
            file.write(f"  team-{team}: {{ scopes: [{', '.join(SCOPES)}] }}\n")
        file.write("keys:\n")
        for number in range(count):
            digest = hashlib.sha256(key_of(number).encode()).hexdigest()
            team = number % max(1, count // KEYS_OF_A_TEAM)
            file.write(f"  - {{ id: key-{number}, team: team-{team}, digest: 'sha256:{digest}', "
                       f"scopes: [READ_TEAM_APPS] }}\n")


def write_config(path, routes, **words):
    """Routes beyond the one of CONFIG are brothers in one folder: the widest that a tree of routes can be."""
    with open(path, "w") as file:
        file.write(CONFIG.format(**words))
        for number in range(routes - 1):
            file.write(f"      GET /api/v1/r{number:05}/{{id}}: READ_TEAM_APPS\n")


class Gate:
    """One scopegate: its files, its process, its figures."""

    def __init__(self, name, work, keys=KEYS, routes=1, connections=0):
        self.name, self.keys, self.routes = name, keys, routes
        # What is beyond a limit is refused or closed, and that is not what is measured.
        self.limits = {limit: max(most, connections) for limit, most in LIMITS.items()}
        self.folder = os.path.join(work, name)
        self.process = None
        self.start_ms = self.fresh_kib = None

    def start(self, binary, core, upstream, keys_files, limit):
        """Starts it and waits until it listens. Gates of as many keys share their file (`keys_files`)."""
        os.makedirs(self.folder)
        if self.keys not in keys_files:
            keys_files[self.keys] = os.path.join(os.path.dirname(self.folder), f"keys-{self.keys}.yaml")
            write_keys(keys_files[self.keys], self.keys)
        self.port, self.admin = free_port(), free_port()
        config = os.path.join(self.folder, "scopegate.yaml")
        write_config(config, self.routes, port=self.port, admin=self.admin, upstream=upstream,
                     keys=keys_files[self.keys], **self.limits)
        # The access log goes to standard output, as a user would have it; a file here, as in production.
        self.log = os.path.join(self.folder, "access.log")
        # PSS counts a page that two processes share as half a page in each: a copy of the program shares none, so that
        # the figure is not one of how many gates are up.
        copy = shutil.copy(binary, self.folder)
        began = time.monotonic()
        self.process = processes.start([copy, "serve", "--config", config], core, self.log)
        if not processes.wait_port(self.port, self.process, limit):
            with open(self.log, errors="replace") as log:
                last = log.read()[-300:].strip()
            ended = self.process.poll()
            how = f"did not listen in {limit:.0f} s" if ended is None else f"ended with {ended} at its start"
            processes.stop(self.process)
            raise Trouble(f"{self.name} {how}: {last or 'it said nothing'}")
        self.start_ms = round((time.monotonic() - began) * 1000)
        time.sleep(0.2)  # what is freed at the end of a start is freed by now
        self.fresh_kib = self.pss_kib()

    def pss_kib(self):
        return processes.pss_kib([self.process.pid])

    def cpu_seconds(self):
        """User and system time of all its threads. The process' own clock (clock_getcpuclockid(3)) counts nanoseconds,
        where processes.cpu_seconds() has ticks of 10 ms: too coarse for a burst in which the load was held up."""
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def metrics(self):
        """Requests so far by class of status and reason, and connections that are open."""
        if self.process.poll() is not None:
            raise Trouble(f"{self.name} ended with {self.process.returncode}")
        connection = http.client.HTTPConnection(processes.HOST, self.admin, timeout=10)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        except OSError as error:
            raise Trouble(f"{self.name} gave no metrics: {error}") from error
        finally:
            connection.close()
        ended = {}
        for labels, value in re.findall(r"^scopegate_requests_total\{(.*)\} (\d+)", text, re.M):
            kind = " ".join(re.search(rf'{name}="(\w+)"', labels).group(1) for name in ("status", "reason"))
            ended[kind] = ended.get(kind, 0) + int(value)
        return ended, int(re.search(r"^scopegate_connections (\d+)", text, re.M).group(1))

    def forget_log(self):
        """Empties the access log, which grows by megabytes a second. It is open for appending, so it goes on."""
        os.truncate(self.log, 0)

    def stop(self):
        if self.process:
            processes.stop(self.process)
