"""A WebSocket over HTTP/2 (RFC 8441) with libraries that are not ours: python-h2 and wsproto.

    python3 websocket_http2.py HOST PORT TARGET MESSAGE ...

sends each message after the answer to the one before, and prints what it was told as JSON: the answer's status and fields,
the messages, the close, and how the stream ended.
"""

import json
import socket
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, TextMessage
from wsproto.extensions import PerMessageDeflate

host, port, target, *messages = sys.argv[1:]
told = {"status": None, "fields": {}, "messages": [], "close": None, "end": None}
deflate = PerMessageDeflate()

http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
http.initiate_connection()
sock = socket.create_connection((host, int(port)), timeout=10)
websocket, stream, text = None, None, ""


def say(event):
    """In pieces that fit into the frames and the window of the other side."""
    data = websocket.send(event)
    while data:
        room = min(http.local_flow_control_window(stream), http.max_outbound_frame_size)
        if room == 0:
            receive()
            continue
        http.send_data(stream, data[:room])
        data = data[room:]
        sock.sendall(http.data_to_send())


def connect():
    assert http.remote_settings.enable_connect_protocol == 1, "it is not offered"
    number = http.get_next_available_stream_id()
    http.send_headers(number, [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", target),
        (":authority", f"{host}:{port}"), ("sec-websocket-version", "13"), ("origin", "https://app.example"),
        ("sec-websocket-extensions", f"permessage-deflate; {deflate.offer()}"),
    ])
    return number


def answered(fields):
    global websocket
    told["status"] = int(fields.pop(":status"))
    told["fields"] = fields
    extension = fields.get("sec-websocket-extensions")
    if extension:
        deflate.finalize(extension)
    websocket = Connection(ConnectionType.CLIENT, [deflate] if extension else [])


def heard(data):
    global text
    websocket.receive_data(data)
    for event in websocket.events():
        if isinstance(event, (TextMessage, BytesMessage)):
            text += event.data if isinstance(event, TextMessage) else event.data.decode()
            if event.message_finished:
                told["messages"].append(text)
                text = ""
                if messages:
                    say(TextMessage(data=messages.pop(0)))
        elif isinstance(event, CloseConnection):
            told["close"] = [int(event.code), event.reason or ""]
            say(event.response())
            http.end_stream(stream)


def receive():
    global stream
    data = sock.recv(65536)
    if not data:
        told["end"] = told["end"] or "connection"
    for event in http.receive_data(data):
        if isinstance(event, h2.events.RemoteSettingsChanged) and stream is None:
            stream = connect()
        elif isinstance(event, h2.events.ResponseReceived):
            answered(dict(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if told["status"] == 200 and event.data:
                heard(event.data)
        elif isinstance(event, h2.events.StreamEnded):
            told["end"] = "stream"
        elif isinstance(event, h2.events.StreamReset):
            told["end"] = told["end"] or f"reset {int(event.error_code)}"
        elif isinstance(event, h2.events.ConnectionTerminated):
            told["end"] = told["end"] or "goaway"
    sock.sendall(http.data_to_send())


sock.sendall(http.data_to_send())
while told["end"] is None:
    receive()
print(json.dumps(told))
