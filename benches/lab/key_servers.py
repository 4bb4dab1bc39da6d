"""Keys in a server, as the benches of keys change them there, and scopegate in front of a small upstream."""
import asyncio
import glob
import hashlib
import os
import pwd
import socket
import subprocess
import sys
import time

import processes

HOST = processes.HOST
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATIENCE = 10


def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def digest(key):
    return hashlib.sha256(key.encode()).hexdigest()


class Redis:
    """A hash a key, and a message after each change, over one connection."""

    def __init__(self, folder):
        self.port = free_port()
        processes.start(["redis-server", "--port", str(self.port), "--bind", HOST, "--save", "", "--dir", folder],
                        None, f"{folder}/redis.log")
        self.section = f"redis: {{ url: 'redis://{HOST}:{self.port}' }}"

    async def open(self):
        self.reader, self.writer = await connect(self.port)
        self.lock = asyncio.Lock()
        await self.ask(["HSET", "scopegate:team:acme", "scopes", "READ_TEAM_APPS"])

    async def ask(self, *commands):
        async with self.lock:
            for words in commands:
                text = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
                self.writer.write(f"*{len(words)}\r\n{text}".encode())
            for _ in commands:
                answer = await self.reader.readline()
                if answer.startswith(b"-"):
                    raise RuntimeError(answer.decode())

    async def make(self, keys):
        for key in keys:
            name = f"scopegate:key:{digest(key)}"
            await self.ask(["HSET", name, "id", key, "team", "acme", "scopes", "READ_TEAM_APPS", "disabled", "false"],
                           ["PUBLISH", "scopegate:changes", f"key {digest(key)}"])

    async def end(self, key):
        await self.ask(["HSET", f"scopegate:key:{digest(key)}", "disabled", "true"],
                       ["PUBLISH", "scopegate:changes", f"key {digest(key)}"])

    def close(self):
        self.writer.close()


class Postgres:
    """The schema that is shipped, changed through psql."""

    def __init__(self, folder):
        binaries = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        if not binaries:
            sys.exit("PostgreSQL is not there: install it, or write --source redis")
        self.folder, self.port, binary = f"{folder}/postgres", free_port(), binaries[-1]
        os.mkdir(self.folder)
        self.su = []
        if os.geteuid() == 0:
            os.chmod(folder, 0o755)
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.su = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        data = f"{self.folder}/data"
        subprocess.run([*self.su, f"{binary}/initdb", "--auth", "trust", "--username", "bench", "--pgdata", data],
                       check=True, stdout=subprocess.DEVNULL)
        processes.start([*self.su, f"{binary}/postgres", "-D", data, "-p", str(self.port), "-h", HOST,
                         "-k", self.folder], None, f"{folder}/postgres.log")
        self.psql = [f"{binary}/psql", "-h", HOST, "-p", str(self.port), "-U", "bench", "-qAt", "postgres"]
        self.section = f"postgres: {{ url: 'postgres://bench@{HOST}:{self.port}/postgres' }}"

    async def open(self):
        deadline = time.monotonic() + PATIENCE
        while subprocess.run([*self.psql, "-c", "select 1"], capture_output=True).returncode:
            if time.monotonic() > deadline:
                sys.exit("PostgreSQL does not start")
            await asyncio.sleep(0.1)
        schema = f"{ROOT}/deploy/postgres/schema.sql"
        subprocess.run([*self.psql, "-v", "ON_ERROR_STOP=1", "-f", schema], check=True, stdout=subprocess.DEVNULL)
        self.process = await asyncio.create_subprocess_exec(
            *self.psql, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        self.lock = asyncio.Lock()
        await self.ask("insert into scopegate.teams (name, scopes) values ('acme', '{READ_TEAM_APPS}')")

    async def ask(self, statement):
        async with self.lock:
            self.process.stdin.write(f"{statement};\nselect 'done';\n".encode())
            while (await self.process.stdout.readline()).strip() != b"done":
                pass

    async def make(self, keys):
        rows = ", ".join(f"('{key}', 'acme', '\\x{digest(key)}', '{{READ_TEAM_APPS}}')" for key in keys)
        await self.ask("insert into scopegate.keys (id, team, digest, scopes) values " + rows
                       + " on conflict (id) do update set disabled = false")

    async def end(self, key):
        await self.ask(f"update scopegate.keys set disabled = true where id = '{key}'")

    def close(self):
        self.process.stdin.close()


async def connect(port, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while True:
        try:
            return await asyncio.open_connection(HOST, port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


async def serve_upstream():
    """A stream that does not end for /api/v1/apps/stream, a short answer for the rest."""
    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"/stream " in head.split(b"\r\n", 1)[0]:
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
                    await reader.read()
                    return
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()
    return await asyncio.start_server(serve, HOST, 0, backlog=4096)


def start_scopegate(folder, name, upstream, section):
    port, admin = free_port(), free_port()
    with open(f"{folder}/{name}.yaml", "w") as file:
        file.write(f"""
listen: [{{ address: '{HOST}:{port}' }}]
admin: {{ address: '{HOST}:{admin}' }}
workers: 2
upstreams: {{ telapi: {{ address: '{HOST}:{upstream}' }} }}
scopes: [READ_TEAM_APPS]
keys: {{ {section} }}
limits: {{ connections_per_client: 10000 }}
surfaces: {{ sdk: {{ access: key, routes: {{ GET /api/v1/apps/**: READ_TEAM_APPS }} }} }}
""")
    binary = os.path.join(os.environ.get("CARGO_TARGET_DIR", f"{ROOT}/target"), "release", "scopegate")
    if not os.path.exists(binary):
        sys.exit("build it first: cargo build --release")
    processes.start([binary, "serve", "--config", f"{folder}/{name}.yaml"], None, f"{folder}/{name}.log")
    return port, admin


def request(path, key):
    return f"GET /api/v1/apps/{path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n".encode()


async def ready(admin, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        reader, writer = await connect(admin, patience)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        if b" 200 " in answer.split(b"\r\n", 1)[0]:
            return
        await asyncio.sleep(0.05)
    sys.exit("scopegate is not ready")


async def metrics(admin, name):
    """The values of a metric, by the text of its labels."""
    reader, writer = await connect(admin)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    pairs = (line[len(name):].rsplit(" ", 1) for line in text.splitlines() if line.startswith(name + "{"))
    return {labels: float(value) for labels, value in pairs}
