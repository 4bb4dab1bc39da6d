"""Requests for a gate: connections that are held, and wrk, whose requests are written out beforehand byte for byte."""
import os
import random
import re
import signal
import socket
import subprocess
import time

import growth_gate
import processes

WARM = 0.3  # seconds of load before the figures are taken
READY = 20  # seconds for all connections to be open and answered
LEAST = 500  # requests of a burst whose figure is believed: with fewer the load was held up
KEYS_ASKED = 512  # where keys are not what grows

# One request after the other, so that no key and no route is hot. wrk's own formatting would sort the headers.
LUA = """\
local requests, count, at = {}, 0, 0
function init(args)
  local file = io.open(args[1], "rb")
  for request in file:read("*a"):gmatch("[^%z]+") do
    count = count + 1
    requests[count] = request
  end
end
function request()
  at = at % count + 1
  return requests[at]
end
function done(summary)
  local e = summary.errors
  io.write(string.format("RESULT broken=%d\\n", e.connect + e.read + e.write + e.timeout))
end
"""

UPSTREAM = """\
worker_processes 1;
worker_rlimit_nofile {files};
daemon off;
pid {work}/upstream.pid;
error_log {work}/upstream.log crit;
events {{ worker_connections {connections}; multi_accept on; }}
http {{
  access_log off;
  client_body_temp_path {work}/up-body;
  proxy_temp_path {work}/up-proxy;
  fastcgi_temp_path {work}/up-fastcgi;
  uwsgi_temp_path {work}/up-uwsgi;
  scgi_temp_path {work}/up-scgi;
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
  large_client_header_buffers 8 64k;
  default_type application/json;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ return 200 '{{"who":"app"}}'; }}
  }}
}}
"""


def request(target, key, fields=()):
    lines = [f"GET {target} HTTP/1.1", "Host: bench", f"Authorization: Bearer {key}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def one_field(size):
    """One header field of so many bytes, the end of its line included."""
    return ["X-Fill: " + "f" * (size - len("X-Fill: ") - 2)]


def many_fields(size, each=40):
    """The same in fields of 40 bytes; what is left over makes the last one longer."""
    count = max(1, size // each)
    names = [f"X-Fill-{number:04}: " for number in range(count)]
    sizes = [each] * (count - 1) + [size - each * (count - 1)]
    return [name + "f" * (length - len(name) - 2) for name, length in zip(names, sizes)]


def asked(known, most):
    """Numbers of keys to ask for, spread over all that are known, in an order that no cache can guess."""
    numbers = [place * known // min(known, most) for place in range(min(known, most))]
    random.Random(1).shuffle(numbers)
    return numbers


def start_upstream(work, core, descriptors):
    port = growth_gate.free_port()
    path = os.path.join(work, "upstream.conf")
    with open(path, "w") as file:
        file.write(UPSTREAM.format(work=work, port=port, files=descriptors, connections=descriptors - 100))
    process = processes.start(["nginx", "-c", path], core, os.path.join(work, "upstream.out"))
    if not processes.wait_port(port, process):
        raise SystemExit(f"benches/growth: nginx did not start; see {work}/upstream.out")
    return port


def answer_to(port, head, held=None):
    """The status of one answer. The connection is appended to `held`, or closed."""
    connection = socket.create_connection((processes.HOST, port), timeout=10)
    try:
        connection.sendall(head)
        answer = b""
        while b"\r\n\r\n" not in answer or len(answer.split(b"\r\n\r\n", 1)[1]) < length_of(answer):
            data = connection.recv(16384)
            if not data:
                break
            answer += data
    except OSError as error:
        connection.close()
        raise growth_gate.Trouble(f"no answer: {error}") from error
    if held is None:
        connection.close()
    else:
        held.append(connection)
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def length_of(answer):
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", answer.split(b"\r\n\r\n", 1)[0])
    return int(found.group(1)) if found else 0


class Load:
    """wrk on one gate, until it is told to end."""

    def __init__(self, gate, requests, connections, core, work):
        self.log = os.path.join(work, "wrk.out")
        with open(self.log, "w"):
            pass
        script = os.path.join(work, "load.lua")
        with open(script, "w") as file:
            file.write(LUA)
        self.process = processes.start(
            ["wrk", "-t1", f"-c{connections}", "-d60s", "--timeout", "30s", "-s", script,
             f"http://127.0.0.1:{gate.port}/", "--", requests], core, self.log)

    def end(self):
        """Ends it, and says how many of its requests broke off."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # wrk ends at once, and still reports
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                pass  # stop() kills it
        processes.stop(self.process)
        with open(self.log, errors="replace") as log:
            text = log.read()
        found = re.search(r"RESULT broken=(\d+)", text)
        if not found:
            raise growth_gate.Trouble(f"wrk did not report: {text[-200:].strip()}")
        return int(found.group(1))


def burst(gate, point, seconds, core, work):
    """Load for some seconds: CPU µs a request, and the memory at its end and after it."""
    before = sum(gate.metrics()[0].values())
    load = Load(gate, point.requests_file, point.connections, core, work)
    try:
        end = time.monotonic() + READY
        while True:
            # Each has had an answer, or about that: the opening of connections, to upstreams too, is over.
            ended, connections = gate.metrics()
            answers = sum(ended.values()) - before
            if connections >= len(point.held) + point.connections and answers >= 2 * point.connections:
                break
            if time.monotonic() > end:
                raise growth_gate.Trouble(f"{connections} connections and {answers} answers after {READY} s")
            time.sleep(0.05)
        time.sleep(WARM)
        # Both times in the same order: the cost of the look is inside once, and the time between the two cancels out.
        first, _ = gate.metrics()
        first_cpu = gate.cpu_seconds()
        time.sleep(seconds)
        last, _ = gate.metrics()
        last_cpu = gate.cpu_seconds()
        under = gate.pss_kib()
    finally:
        broken = load.end()
        gate.forget_log()
    time.sleep(0.1)
    after = gate.pss_kib()
    made = {kind: last[kind] - first.get(kind, 0) for kind in last if last[kind] != first.get(kind, 0)}
    wanted = f"{point.status // 100}xx"
    if broken or not all(kind.startswith(wanted) for kind in made):
        raise growth_gate.Trouble(f"{broken} requests broke off, and answers were {made}, not {wanted} alone")
    count = sum(made.values())
    if count < LEAST:
        raise growth_gate.Trouble(f"only {count} requests ended while the figures were taken")
    return {"cpu_us": (last_cpu - first_cpu) / count * 1e6, "rate": count / seconds, "under": under, "after": after}
