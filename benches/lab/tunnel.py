#!/usr/bin/env python3
"""Load for WebSocket tunnels: an echo server, and a client that keeps one frame in flight on each tunnel.

    tunnel.py --upstream PORT
    tunnel.py --connect HOST:PORT --target '/ws/session?sessionId=a&token=b' --tunnels 64 --seconds 2
    tunnel.py --connect HOST:PORT --target ... --tunnels 500 --idle

The client prints one line, {"frames": echoed, "seconds": measured, "errors": tunnels that failed}. With --idle each
tunnel carries one frame, then the line is printed, and all are held until standard input ends: that is when the memory
of a tunnel can be read. What a frame costs is the CPU of the proxy between the two, which the caller reads.
"""
import argparse
import base64
import hashlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time

HOST = "127.0.0.1"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
PAYLOAD = 100
HEAD_LIMIT = 16 * 1024
WAIT = 10  # seconds for a connection and its handshake


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def text_frame():
    """One whole text message, masked as a client must: 2 bytes of head, 4 of mask, 100 of payload."""
    mask = os.urandom(4)
    payload = b"x" * PAYLOAD
    return bytes([0x81, 0x80 | PAYLOAD]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def header(head, wanted):
    """The value of a field of a request or an answer, or None."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == wanted:
            return value.strip()
    return None


def raise_limit():
    """As many descriptors as the system lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Echo:
    """Answers handshakes, then sends back what comes, byte for byte: frames are not read, so they cost nothing."""

    def __init__(self, port):
        self.listener = socket.create_server((HOST, port), backlog=4096)
        self.listener.setblocking(False)
        self.poll = select.epoll()
        self.poll.register(self.listener, select.EPOLLIN)
        self.open = {}  # descriptor -> socket
        self.heads = {}  # descriptor -> bytes of a handshake that is not whole yet
        self.unsent = {}  # descriptor -> bytes that the socket would not take yet

    def run(self):
        entrance = self.listener.fileno()
        while True:
            for descriptor, _ in self.poll.poll():
                if descriptor == entrance:
                    self.accept()
                    continue
                try:
                    if descriptor in self.unsent:
                        self.send(descriptor, b"")
                    else:
                        self.receive(descriptor)
                except BlockingIOError:
                    pass
                except OSError:
                    self.close(descriptor)

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:  # nobody more, or no descriptor left
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.open[connection.fileno()] = connection
            self.heads[connection.fileno()] = b""
            self.poll.register(connection, select.EPOLLIN)

    def receive(self, descriptor):
        data = self.open[descriptor].recv(65536)
        if not data:
            self.close(descriptor)
        elif descriptor in self.heads:
            self.shake_hands(descriptor, self.heads[descriptor] + data)
        else:
            self.send(descriptor, data)

    def shake_hands(self, descriptor, seen):
        head, end, rest = seen.partition(b"\r\n\r\n")
        if not end:
            self.heads[descriptor] = seen
            if len(seen) > HEAD_LIMIT:
                self.close(descriptor)
            return
        key = header(head, b"sec-websocket-key")
        if key is None or (header(head, b"upgrade") or b"").lower() != b"websocket":
            # A probe, such as a health check: an answer, and the connection stays.
            self.heads[descriptor] = b""
            self.send(descriptor, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        del self.heads[descriptor]
        self.send(descriptor, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                              b"Sec-WebSocket-Accept: " + accept_of(key) + b"\r\n\r\n" + rest)

    def send(self, descriptor, data):
        waited = self.unsent.pop(descriptor, None)
        data = (waited or b"") + data
        try:
            sent = self.open[descriptor].send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            # Nothing more is read until this is gone: a client that does not read must not fill our memory.
            self.unsent[descriptor] = data[sent:]
            if waited is None:
                self.poll.modify(descriptor, select.EPOLLOUT)
        elif waited is not None:
            self.poll.modify(descriptor, select.EPOLLIN)

    def close(self, descriptor):
        self.heads.pop(descriptor, None)
        self.unsent.pop(descriptor, None)
        self.open.pop(descriptor).close()


class Tunnel:
    """One tunnel of the client: a frame goes out, and goes out again when it is back."""

    def __init__(self, address, target, frame):
        self.frame = frame
        self.back = b""
        self.socket = socket.create_connection(address, timeout=WAIT)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.shake_hands(address, target)
        except BaseException:
            self.socket.close()
            raise
        self.socket.setblocking(False)

    def shake_hands(self, address, target):
        key = base64.b64encode(os.urandom(16))
        self.socket.sendall(f"GET {target} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nUpgrade: websocket\r\n"
                            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                            f"Sec-WebSocket-Key: {key.decode()}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.socket.recv(4096)
            if not data or len(head) > HEAD_LIMIT:
                raise OSError(f"no whole answer to the handshake: {head[:80]!r}")
            head += data
        head, _, self.back = head.partition(b"\r\n\r\n")
        if head.split(b" ", 2)[1:2] != [b"101"]:
            raise OSError(f"not 101: {head.splitlines()[0].decode(errors='replace')}")
        if header(head, b"sec-websocket-accept") != accept_of(key):
            raise OSError("Sec-WebSocket-Accept is not the one of this key")

    def say(self):
        # One small frame and nothing else under way: it always fits the socket's buffer.
        if self.socket.send(self.frame) != len(self.frame):
            raise OSError("a frame did not fit the socket's buffer")

    def hear(self):
        """True once the frame is back, whole and as it was."""
        data = self.socket.recv(4096)
        if not data:
            raise OSError("the tunnel has ended")
        self.back += data
        if len(self.back) < len(self.frame):
            return False
        if self.back != self.frame:
            raise OSError("what came back is not what was sent")
        self.back = b""
        return True


class Client:
    def __init__(self, address, target, count):
        self.errors = 0
        self.frames = 0
        self.poll = select.epoll()
        self.open = {}
        frame = text_frame()
        for _ in range(count):
            try:
                tunnel = Tunnel(address, target, frame)
            except OSError as error:
                self.failed(error)
                continue
            self.open[tunnel.socket.fileno()] = tunnel
            self.poll.register(tunnel.socket, select.EPOLLIN)

    def failed(self, error):
        self.errors += 1
        if self.errors <= 3:
            print(f"tunnel.py: {error}", file=sys.stderr)

    def drop(self, descriptor, error):
        self.failed(error)
        self.open.pop(descriptor).socket.close()

    def say_all(self):
        for descriptor, tunnel in list(self.open.items()):
            try:
                tunnel.say()
            except OSError as error:
                self.drop(descriptor, error)

    def hear(self, timeout, again):
        """One turn of the loop: counts what is back, and where `again` says it anew."""
        for descriptor, _ in self.poll.poll(timeout):
            tunnel = self.open[descriptor]
            try:
                if tunnel.hear():
                    self.frames += 1
                    if again:
                        tunnel.say()
            except BlockingIOError:
                pass
            except OSError as error:
                self.drop(descriptor, error)

    def load(self, seconds):
        """Frames both ways for that long; the seconds that it took."""
        began = time.monotonic()
        self.say_all()
        while self.open and time.monotonic() - began < seconds:
            self.hear(0.1, again=True)
        return time.monotonic() - began

    def once(self):
        """One frame on each tunnel, and back."""
        began = time.monotonic()
        self.say_all()
        while self.frames < len(self.open) and time.monotonic() - began < WAIT:
            self.hear(0.1, again=False)
        self.errors += max(0, len(self.open) - self.frames)
        return time.monotonic() - began


def host_and_port(text):
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT")
    return host, int(port)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    role = parser.add_mutually_exclusive_group(required=True)
    role.add_argument("--upstream", type=int, metavar="PORT", help="be the echo server on this port of 127.0.0.1")
    role.add_argument("--connect", type=host_and_port, metavar="HOST:PORT", help="be the client of this proxy")
    parser.add_argument("--target", default="/ws/session?sessionId=a&token=b", help="what is asked for (%(default)s)")
    parser.add_argument("--tunnels", type=int, default=64, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2, metavar="S", help="how long (%(default)s)")
    parser.add_argument("--idle", action="store_true", help="one frame each, then hold them until stdin ends")
    asked = parser.parse_args()
    raise_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if asked.upstream:
        Echo(asked.upstream).run()
    client = Client(asked.connect, asked.target, asked.tunnels)
    seconds = client.once() if asked.idle else client.load(asked.seconds)
    print(json.dumps({"frames": client.frames, "seconds": round(seconds, 3), "errors": client.errors}), flush=True)
    if asked.idle:
        sys.stdin.read()
    return 1 if client.errors else 0


if __name__ == "__main__":
    sys.exit(main())
