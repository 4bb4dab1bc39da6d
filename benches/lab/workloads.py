"""What is asked of the peers, and what is measured meanwhile."""
import contextlib
import time
from dataclasses import dataclass
from typing import Callable

import check
import load
import processes

CONNECTIONS = 64
LARGE_CONNECTIONS = 16  # of 1 MiB bodies: enough to keep a core busy, and they fit in memory
SHAKING_CONNECTIONS = 16  # at a time
SHAKING_AT_ONCE = 100  # whole handshakes
FLOOD_RATE = 1000  # unknown keys a second
TUNNELS = 64
HELD_TUNNELS = 500
SETTLED = 1  # seconds until memory has settled


@dataclass
class Workload:
    title: str
    kind: str  # "cpu", "latency" or "memory": which table it stands in
    run: Callable  # (lab, peer) to a result, or None where the peer has no such thing


def cpu_of(peer, ask):
    """CPU time of the peer's processes a request that was answered meanwhile."""
    before, began = processes.cpu_seconds(peer.pids()), time.monotonic()
    result = ask()
    used, wall = processes.cpu_seconds(peer.pids()) - before, time.monotonic() - began
    if "error" in result:
        return result
    return {"cpu_us": used / result["requests"] * 1e6, "busy": used / wall, **result}


def wrk(kind, keys, connections=CONNECTIONS, refused=False, tls=False):
    def run(lab, peer):
        if (refused and not peer.checks) or (tls and not peer.encrypts):
            return None
        port, scheme = (peer.tls, "https") if tls else (peer.http, "http")
        return cpu_of(peer, lambda: load.wrk(port, kind, lab.keys.path(keys), connections, lab.seconds,
                                             lab.load_core, refused, scheme))
    return run


def h2c(lab, peer):
    if not peer.h2c:
        return None
    return cpu_of(peer, lambda: load.h2load(peer.h2, lab.keys.one, lab.seconds, lab.load_core))


def h2_tls(lab, peer):
    if not peer.encrypts:
        return None
    return cpu_of(peer, lambda: load.h2load(peer.tls, lab.keys.one, lab.seconds, lab.load_core, "https"))


def handshake(lab, peer):
    if not peer.encrypts:
        return None
    return cpu_of(peer, lambda: load.handshakes(peer.tls, lab.keys.one, SHAKING_AT_ONCE, lab.seconds, lab.load_core))


def tunnel(lab, peer):
    if not peer.channels:
        return None
    return cpu_of(peer, lambda: load.frames(peer.ws, check.TARGET, TUNNELS, lab.seconds, lab.load_core))


def latency(circumstance=None):
    def run(lab, peer):
        # `direct` has no keys, and stands in that row as what the others are compared with.
        if circumstance == "reload" and not peer.keys_file and peer.name != "direct":
            return None
        reloads = []
        with contextlib.ExitStack() as during:
            if circumstance == "reload" and peer.keys_file:
                reloads = during.enter_context(peer.reloads())
            elif circumstance == "flood":
                limit = lab.latency_seconds + load.SLACK
                during.enter_context(load.flood(peer.http, FLOOD_RATE, limit, lab.load_core))
            elif circumstance == "idle":
                during.enter_context(load.idle(peer.http, lab.keys.one, lab.idle))
            result = load.oha(peer.http, lab.keys.one, lab.rate, lab.latency_seconds, lab.load_core)
            if reloads:
                result["reloads"] = len(reloads)
        return result
    return run


def fresh(lab, peer):
    """Started anew and asked once; its memory in KiB."""
    peer.restart()
    check.ask(peer.http, "GET", "/api/v1/apps", lab.keys.one)
    time.sleep(SETTLED)
    return processes.pss_kib(peer.pids())


def idle(lab, peer):
    """Memory of a fresh process, then with idle connections; and of another, with idle tunnels."""
    if peer.name == "direct":
        return None
    before = fresh(lab, peer)
    result = {"start_ms": peer.start_ms, "fresh_kib": before}
    with load.idle(peer.http, lab.keys.one, lab.idle) as (held, errors):
        time.sleep(SETTLED)
        result["kib_a_connection"] = (processes.pss_kib(peer.pids()) - before) / max(1, held)
    if peer.encrypts:
        before = fresh(lab, peer)
        with load.idle(peer.tls, lab.keys.one, lab.idle, check.trusting()) as (held, failed):
            time.sleep(SETTLED)
            result["kib_a_tls_connection"] = (processes.pss_kib(peer.pids()) - before) / max(1, held)
        errors += failed
    if peer.channels:
        before = fresh(lab, peer)
        with load.tunnels(peer.ws, check.TARGET, HELD_TUNNELS, lab.load_core) as failed:
            time.sleep(SETTLED)
            result["kib_a_tunnel"] = (processes.pss_kib(peer.pids()) - before) / max(1, HELD_TUNNELS - failed)
        errors += failed
    return {**result, "errors": errors}


WORKLOADS = {
    "get": Workload("GET, small answer", "cpu", wrk("get", "may.READ_TEAM_APPS")),
    "post": Workload("POST, 1 KiB", "cpu", wrk("post", "may.CREATE_CALL_TOKEN")),
    "big": Workload("GET, 64 KiB answer", "cpu", wrk("big", "may.READ_CALL_TOKEN")),
    "post-big": Workload("POST, 1 MiB", "cpu", wrk("large", "may.CREATE_CALL_TOKEN", LARGE_CONNECTIONS)),
    "401": Workload("401 (unknown key)", "cpu", wrk("get", "unknown", refused=True)),
    "403": Workload("403 (known key, scope missing)", "cpu", wrk("get", "may-not.READ_TEAM_APPS", refused=True)),
    "h2c": Workload("GET over HTTP/2 (h2c)", "cpu", h2c),
    "tls": Workload("GET over TLS 1.3", "cpu", wrk("get", "may.READ_TEAM_APPS", tls=True)),
    "h2-tls": Workload("GET over HTTP/2 and TLS 1.3", "cpu", h2_tls),
    "handshake": Workload("GET after a whole TLS handshake", "cpu", handshake),
    "resumed": Workload("GET after a TLS handshake that resumes a session", "cpu",
                        wrk("close", "may.READ_TEAM_APPS", SHAKING_CONNECTIONS, tls=True)),
    "tunnel": Workload("WebSocket, a frame of 100 bytes there and back", "cpu", tunnel),
    "latency": Workload("nothing else", "latency", latency()),
    "latency-reload": Workload("keys reloaded every second", "latency", latency("reload")),
    "latency-flood": Workload(f"{FLOOD_RATE:,} unknown keys a second besides", "latency", latency("flood")),
    "latency-idle": Workload("idle connections besides", "latency", latency("idle")),
    "idle": Workload("memory, and the start", "memory", idle),
}
