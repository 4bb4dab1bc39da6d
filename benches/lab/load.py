"""What asks the peers: wrk, h2load, oha, and connections that only stay open."""
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import processes
from processes import HOST

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.environ.get("BENCH_CACHE") or os.path.join(tempfile.gettempdir(), "bench-target")
SLACK = 20  # seconds that a generator may take beyond its time, then it is ended


def oha_binary():
    ours = os.path.join(CACHE, "tools/bin/oha")
    return ours if os.access(ours, os.X_OK) else shutil.which("oha")


def last(output):
    return {"error": output[-300:].strip() or "no output"}


def wrk(port, kind, keys, connections, seconds, core, refused=False, scheme="http"):
    """As many requests as the peer can answer; `refused` where 4xx is the right answer."""
    output = processes.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", f"{HERE}/wrk.lua",
                            f"{scheme}://{HOST}:{port}/", "--", kind, keys], core, seconds + SLACK)
    found = re.search(r"^RESULT (.*)$", output, re.MULTILINE)
    if not found:
        return last(output)
    said = {name: float(value) for name, value in (word.split("=") for word in found.group(1).split())}
    requests = said["requests"]
    if not requests:
        return last(output)
    wrong = requests - said["refused"] if refused else said["refused"]
    return {"requests": int(requests), "rps": requests / said["us"] * 1e6, "errors": int(said["broken"] + wrong),
            "broken_connections": int(said["broken"]), "wrong_answers": int(wrong),
            "p50_us": said["p50_us"], "p99_us": said["p99_us"]}


def h2load(port, key, seconds, core, scheme="http"):
    """HTTP/2, with prior knowledge or by ALPN; 8 connections with 8 streams each."""
    output = processes.run(["h2load", "-t1", "-c8", "-m8", f"-D{seconds}", "-H", f"authorization: Bearer {key}",
                            f"{scheme}://{HOST}:{port}/api/v1/apps"], core, seconds + SLACK)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
    failed = re.search(r"succeeded, (\d+) failed", output)
    if not codes or not failed or not int(codes.group(1)):
        return last(output)
    requests = int(codes.group(1))
    # The requests under way when the time is over are counted as failed: 64 at the most.
    cut = int(failed.group(1))
    wrong = sum(int(code) for code in codes.groups()[1:]) + (cut if cut > 64 else 0)
    return {"requests": requests, "rps": requests / seconds, "errors": wrong}


def handshakes(port, key, count, seconds, core):
    """A request on each of `count` new connections under TLS, again and again; none of them knows the others' sessions."""
    requests, errors, began = 0, 0, time.monotonic()
    while time.monotonic() - began < seconds:
        output = processes.run(["h2load", "--h1", "-t1", f"-c{count}", f"-n{count}", "-H", f"authorization: Bearer {key}",
                                f"https://{HOST}:{port}/api/v1/apps"], core, seconds + SLACK)
        codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
        if not codes or not int(codes.group(1)):
            return last(output)
        requests += int(codes.group(1))
        errors += count - int(codes.group(1))
    return {"requests": requests, "rps": requests / (time.monotonic() - began), "errors": errors}


def oha(port, key, rate, seconds, core):
    """A fixed rate. Latency counts from when a request was due, not from when it could be sent at last."""
    output = processes.run([oha_binary(), "-z", f"{seconds}s", "-q", str(rate), "-c", "16", "--no-tui",
                            "--latency-correction", "--output-format", "json", "-H", f"Authorization: Bearer {key}",
                            f"http://{HOST}:{port}/api/v1/apps"], core, seconds + SLACK)
    try:
        said = json.loads(output)
        codes, points = said["statusCodeDistribution"], said["latencyPercentiles"]
        requests = sum(codes.values())
        broken = sum(count for what, count in said.get("errorDistribution", {}).items() if "deadline" not in what)
        return {"requests": requests, "rps": requests / seconds, "errors": requests - codes.get("200", 0) + broken,
                "p50_us": points["p50"] * 1e6, "p99_us": points["p99"] * 1e6, "p999_us": points["p99.9"] * 1e6}
    except (ValueError, KeyError, TypeError):
        return last(output)


@contextlib.contextmanager
def flood(port, rate, seconds, core):
    """Unknown keys, a new one each time, at a fixed rate while the body runs; the answers asked for are 401."""
    connections = 10
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", f"{HERE}/wrk.lua", f"http://{HOST}:{port}/",
            "--", "flood", str(rate), str(connections)]
    process = processes.start(argv, core, os.devnull)
    try:
        yield
    finally:
        processes.stop(process)


@contextlib.contextmanager
def idle(port, key, count, tls=None):
    """Connections that have had one request each and stay open, under TLS where there is a context for it; gives (held,
    failed)."""
    request = f"GET /api/v1/apps HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        held = failed = 0
        for _ in range(count):
            try:
                connection = stack.enter_context(socket.create_connection((HOST, port), 5))
                if tls:
                    connection = stack.enter_context(tls.wrap_socket(connection))
                connection.sendall(request)
                if b" 200 " in connection.recv(4096):
                    held += 1
                else:
                    failed += 1
            except OSError:
                failed += 1
        yield held, failed


def frames(port, target, tunnels, seconds, core):
    """WebSocket tunnels with a frame of 100 bytes under way on each, there and back."""
    output = processes.run([sys.executable, f"{HERE}/tunnel.py", "--connect", f"{HOST}:{port}", "--target", target,
                            "--tunnels", str(tunnels), "--seconds", str(seconds)], core, seconds + SLACK)
    try:
        said = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return last(output)
    if not said["frames"]:
        return last(output)
    return {"requests": said["frames"], "rps": said["frames"] / said["seconds"], "errors": said["errors"]}


@contextlib.contextmanager
def tunnels(port, target, count, core):
    """Tunnels that have carried a frame each and stay open; gives how many failed."""
    argv = [sys.executable, f"{HERE}/tunnel.py", "--connect", f"{HOST}:{port}", "--target", target,
            "--tunnels", str(count), "--idle"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               preexec_fn=processes.prepare(core))
    processes.STARTED.append(process)
    try:
        line = process.stdout.readline()
        yield json.loads(line)["errors"] if line else count
    finally:
        process.stdin.close()
        process.stdout.close()
        processes.stop(process)
