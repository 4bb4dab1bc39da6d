"""A WebSocket over TLS with a library that is not ours: websockets.

    python3 websocket_tls.py PORT NAME CA TARGET

says much in several ways to who sends all of it back, and prints what it was told as JSON.
"""

import json
import socket
import ssl
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

port, name, ca, target = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
sock = socket.create_connection(("127.0.0.1", int(port)), timeout=10)
told = {}
with connect(f"wss://{name}:{port}{target}", sock=sock, ssl=context, max_size=None, close_timeout=10) as channel:
    told["version"] = channel.socket.version()
    channel.send("hello")
    told["text"] = channel.recv(10) == "hello"
    much = bytes(range(256)) * 16384
    channel.send(much)
    told["large"] = channel.recv(10) == much
    channel.send(["in ", "three ", "pieces"])
    told["pieces"] = channel.recv(10)
    told["pong"] = channel.ping(b"are you there").wait(10)
    channel.close(4321, "enough")
    try:
        channel.recv(10)
    except ConnectionClosed as closed:
        told["close"] = [closed.rcvd.code, closed.rcvd.reason] if closed.rcvd else None
print(json.dumps(told))
