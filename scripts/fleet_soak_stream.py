"""Reads a fleet's stream by the text protocol of NATS, and judges it, for fleet_soak.py."""
import base64
import json
import math
import socket
import threading
import time
from datetime import datetime


class Client:
    """A connection with subscriptions. `number` n belongs to the n-th subject, from 1."""

    def __init__(self, address, subjects):
        self.socket = socket.create_connection((address, 4222), timeout=5)
        self.file = self.socket.makefile("rb")
        self.file.readline()  # INFO
        text = 'CONNECT {"verbose":false,"headers":true}\r\n'
        text += "".join(f"SUB {subject} {n}\r\n" for n, subject in enumerate(subjects, 1))
        self.send(text.encode() + b"PING\r\n")
        while not self.file.readline().startswith(b"PONG"):
            pass

    def send(self, data):
        self.socket.sendall(data)

    def publish(self, subject, reply, body=b""):
        self.send(f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n")

    def next(self):
        """The next message: subject, reply subject, headers, body."""
        while True:
            line = self.file.readline()
            if not line:
                raise OSError("the connection has ended")
            words = line.split()
            if words[0] == b"PING":
                self.send(b"PONG\r\n")
            if words[0] not in (b"MSG", b"HMSG"):
                continue
            has_headers = words[0] == b"HMSG"
            header = int(words[-2]) if has_headers else 0
            data = self.file.read(int(words[-1]) + 2)[:-2]
            reply = words[3].decode() if len(words) > (5 if has_headers else 4) else ""
            return words[1].decode(), reply, data[:header].decode(), data[header:]


def message_id(headers):
    for line in headers.split("\r\n"):
        if line.lower().startswith("nats-msg-id:"):
            return line.split(":", 1)[1].strip()
    return None


class Monitor(threading.Thread):
    """Listens at one server to events that are published, and to JetStream's acknowledgements of
    them. Connects again when the server was gone."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address = address
        self.published = {}  # reply subject -> message id
        self.answers = set()  # reply subjects
        self.start()

    def run(self):
        while True:
            try:
                client = Client(self.address, ["twintrack.events.>", "_INBOX.>"])
                while True:
                    subject, reply, headers, body = client.next()
                    if subject.startswith("twintrack.events."):
                        self.published[reply] = message_id(headers)
                    elif b'"stream":"twintrack-events"' in body.replace(b" ", b""):
                        if b'"error"' not in body:
                            self.answers.add(subject)
            except OSError:
                time.sleep(0.5)

    def acknowledged(self):
        """Ids of the messages whose acknowledgements were seen."""
        return {self.published[a] for a in list(self.answers) if a in self.published}


class Stream:
    """Requests to JetStream at one server."""

    def __init__(self, address):
        self.address = address

    def request(self, name, body=None):
        client = Client(self.address, ["soak.answer"])
        client.publish(f"$JS.API.{name}", "soak.answer", json.dumps(body or {}).encode())
        return json.loads(client.next()[3])

    def has_leader(self):
        try:
            return "error" not in self.request("STREAM.NAMES")
        except OSError:
            return False

    def leader(self, stream):
        return self.request(f"STREAM.INFO.{stream}")["cluster"]["leader"]

    def last(self, stream, subject):
        """The last message of a subject, which is JSON."""
        answer = self.request(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        return json.loads(base64.b64decode(answer["message"]["data"]))

    def read(self, stream):
        """All messages, in their order: message id, time of storage, event."""
        for _ in range(2):
            try:
                return self.read_once(stream)
            except OSError as error:
                # A server that just became a leader may send nothing to a new subscriber.
                print(f"the stream could not be read ({error}), again", flush=True)
        return self.read_once(stream)

    def read_once(self, stream):
        count = self.request(f"STREAM.INFO.{stream}")["state"]["messages"]
        client = Client(self.address, ["soak.reader"])
        config = {"deliver_subject": "soak.reader", "ack_policy": "none", "deliver_policy": "all"}
        self.request(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
        events = []
        client.socket.settimeout(30)
        while len(events) < count:
            _, reply, headers, body = client.next()
            stored = int(reply.split(".")[7]) / 1e9
            events.append((message_id(headers), stored, json.loads(body)))
        return events


def quantile(values, share):
    """The smallest value that at least this share of the values does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else 0.0


def seconds(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def judge(events, acknowledged, phases):
    """Checks events in the order of the stream, and adds to each phase what happened in it."""
    for phase in phases:
        phase.update(gaps=[], late=0, gone=0)

    def phase_at(at):
        return [p for p in phases if p["from"] <= at or p is phases[0]][-1]

    ids = [message for message, _, _ in events]
    found = {"events": len(events), "acknowledged": len(acknowledged), "without": 0, "late": 0,
             "gone": 0, "interleaved": [], "lost": sorted(acknowledged - set(ids)),
             "doubled": [m for m, n in counts(ids).items() if n > 1]}
    cameras, numbers = {}, {}
    for message, stored, event in events:
        lease = event.get("lease")
        if lease is None:
            found["without"] += 1
            continue
        if "frame" not in event:
            continue
        made = seconds(event["time"])
        camera = cameras.setdefault(event["camera"], {})
        first, last = camera.get(lease, (made, made))
        if camera and lease < max(camera):
            found["late"] += 1
            phase_at(stored)["late"] += 1
        camera[lease] = (min(first, made), max(last, made))
    for name, camera in cameras.items():
        leases = sorted(camera)
        for old, new in zip(leases, leases[1:]):
            gap = camera[new][0] - camera[old][1]
            phase_at(camera[new][0])["gaps"].append(gap)
            if gap <= 0:
                found["interleaved"].append(f"{name}: leases {old} and {new}, {-gap:.3f} s")
    for _, stored, event in events:
        if "seq" in event and "lease" in event:
            key = (event["run"], event["camera"], event["lease"])
            numbers.setdefault(key, []).append((event["seq"], stored))
    for seen in numbers.values():
        seen.sort()
        for (a, _), (b, stored) in zip(seen, seen[1:]):
            if b > a + 1:
                found["gone"] += b - a - 1
                phase_at(stored)["gone"] += b - a - 1
    found["cameras"] = len(cameras)
    return found


def counts(values):
    number = {}
    for value in values:
        number[value] = number.get(value, 0) + 1
    return number
