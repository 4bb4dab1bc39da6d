"""HTTP/2 over TLS with libraries that are not ours: OpenSSL and python-h2.

    python3 http2_tls.py PORT NAME CA TARGET SIZE

sends a body of this size, as far as the windows let it, and prints what it was told as JSON.
"""

import json
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events

port, name, ca, target, size = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.set_alpn_protocols(["h2", "http/1.1"])
sock = context.wrap_socket(socket.create_connection(("127.0.0.1", int(port)), timeout=10), server_hostname=name)
told = {"alpn": sock.selected_alpn_protocol(), "version": sock.version(), "status": None, "body": 0, "end": None}

http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
http.initiate_connection()
stream, left = http.get_next_available_stream_id(), int(size)
http.send_headers(stream, [
    (":method", "POST"), (":scheme", "https"), (":authority", f"{name}:{port}"), (":path", target),
    ("content-length", size),
])
while told["end"] is None:
    while left and (room := min(left, http.local_flow_control_window(stream), http.max_outbound_frame_size)):
        left -= room
        http.send_data(stream, b"x" * room, end_stream=not left)
    sock.sendall(http.data_to_send())
    data = sock.recv(65536)
    if not data:
        told["end"] = "connection"
    for event in http.receive_data(data):
        if isinstance(event, h2.events.ResponseReceived):
            told["status"] = int(dict(event.headers)[":status"])
        elif isinstance(event, h2.events.DataReceived):
            told["body"] += len(event.data)
            http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            told["end"] = "stream"
        elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
            told["end"] = type(event).__name__
print(json.dumps(told))
