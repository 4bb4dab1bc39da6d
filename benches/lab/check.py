"""Whether a peer gives the answers that all must give: what does less work may not be compared."""
import contextlib
import socket
import ssl
import time

import load
from peer import EXTRA
from processes import HOST

TARGET = "/ws/session?sessionId=a&token=b"
LARGE = 1024 * 1024
RELOAD_LIMIT = 10  # seconds


def trusting():
    """For clients that believe any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def not_encrypted(peer, key):
    """Whether it speaks HTTP/2 by ALPN and HTTP/1.1 without, under TLS 1.3, and asks for a key there too."""
    context, found = trusting(), []
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection((HOST, peer.tls), 5) as tcp, context.wrap_socket(tcp) as connection:
            if (connection.version(), connection.selected_alpn_protocol()) != ("TLSv1.3", "h2"):
                found.append(f"TLS: {connection.version()}, {connection.selected_alpn_protocol()}")
    except OSError as error:
        found.append(f"TLS: {error}")
    for asked, status in ((key, 200), ("sk_unknown", 401)):
        if (got := ask(peer.tls, "GET", "/api/v1/apps", asked, tls=trusting())[0]) != status:
            found.append(f"under TLS: {got}, not {status}")
    return found


def ask(port, method, path, key=None, body=b"", tls=None):
    """The status, 0 where there was none, and the body."""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
    if key is not None:
        head += f"Authorization: Bearer {key}\r\n"
    if method == "POST":
        head += f"Content-Length: {len(body)}\r\n"
    got = b""
    try:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((HOST, port), 5))
            if tls:
                connection = stack.enter_context(tls.wrap_socket(connection))
            connection.sendall(head.encode() + b"\r\n" + body)
            while chunk := connection.recv(65536):
                got += chunk
    except OSError:
        pass
    head, _, answer = got.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    return int(status[0]) if status and status[0].isdigit() else 0, answer


def not_reloaded(peer):
    """Whether a key that is new in the file opens, and closes again."""
    for more, status in ((True, 200), (False, 401)):
        end = time.monotonic() + RELOAD_LIMIT
        got = again = 0
        while got != status:
            now = time.monotonic()
            if now > end:
                return [f"a key that {'came' if more else 'went'} in a reload: {got}, not {status}"]
            if now > again:  # a signal to a HAProxy that has just started can be lost
                peer.put_keys(more)
                again = now + 2
            time.sleep(0.05)
            got = ask(peer.http, "GET", "/api/v1/apps", EXTRA)[0]
    return []


def wrong(peer, keys):
    """What it answers otherwise than it must, in words."""
    small = b"x" * 1024
    wanted = [
        # what, method, path, key, body, status, text in the answer
        ("right scope, GET", "GET", "/api/v1/apps", keys.apps, b"", 200, b'"app_01"'),
        ("with a query", "GET", "/api/v1/apps?limit=5", keys.apps, b"", 200, b'"app_01"'),
        ("right scope, POST", "POST", "/api/v1/call-tokens", keys.create, small, 200, b'"token"'),
        ("right scope, below", "GET", "/api/v1/call-tokens/ab", keys.read, b"", 200, b'"active"'),
        ("64 KiB", "GET", "/api/v1/call-tokens/big", keys.read, b"", 200, b"0123456789abcdef" * 4096),
        ("POST of 1 MiB", "POST", "/api/v1/sessions/token", keys.create, b"x" * LARGE, 200, b"/read/%d" % LARGE),
    ]
    if peer.checks:
        wanted += [
            ("webhook", "POST", "/api/v1/webhooks/github", None, small, 200, b'"webhooks"'),
            ("no key", "GET", "/api/v1/apps", None, b"", 401, b""),
            ("unknown key", "GET", "/api/v1/apps", "sk_unknown", b"", 401, b""),
            ("no scope at all", "GET", "/api/v1/apps", keys.none, b"", 403, b""),
            ("another scope", "GET", "/api/v1/apps", keys.read, b"", 403, b""),
            ("scope of GET, POST", "POST", "/api/v1/call-tokens", keys.read, b"", 403, b""),
            ("scope of GET, large POST", "POST", "/api/v1/sessions/token", keys.read, b"", 403, b""),
            ("scope of POST, GET", "GET", "/api/v1/call-tokens/ab", keys.create, b"", 403, b""),
            ("no rule", "GET", "/api/v1/other", keys.all, b"", 403, b""),
            ("no rule, unknown key", "GET", "/api/v1/other", "sk_unknown", b"", 401, b""),
        ]
    found = []
    for what, method, path, key, body, status, text in wanted:
        got, answer = ask(peer.http, method, path, key, body)
        if got != status:
            found.append(f"{what}: {got}, not {status}")
        elif text not in answer:
            found.append(f"{what}: another answer")
    if peer.encrypts:
        found += not_encrypted(peer, keys.apps)
    if peer.keys_file:
        found += not_reloaded(peer)
    if peer.channels:
        with load.tunnels(peer.ws, TARGET, 2, peer.lab.load_core) as failed:
            if failed:
                found.append("no WebSocket passes")
    return found
