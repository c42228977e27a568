"""What clients and people do to a server that listens: benchmarks/results/serving.md names each."""

import base64
import concurrent.futures
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from photos import encoded, photo
from places import ROOT

from dit_jax.serve import desk, server

TEXT = "the red star"
LIMITS = dict(name="m", host="127.0.0.1", port=0, deadline=1.0)
BODY = json.dumps(
    {
        "image": base64.b64encode(encoded(photo())).decode(),
        "prompts": [{"text": TEXT}] * 2,
        "output": "png",
    }
).encode()


@pytest.fixture
def listening(segmenter):
    """(uvicorn's server, its application's desk, port), in a thread."""
    segmenter(photo(), TEXT)  # compiled, because the deadline is short
    running, served, one = server.make_server(segmenter, **LIMITS)
    served.ready.set()
    thread = threading.Thread(target=running.run, args=([one],), daemon=True)
    port = one.getsockname()[1]
    thread.start()
    wait_for(lambda: running.started)
    yield running, running.config.app.state.desk, port
    running.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def request(port, *, path="/v1/segment", body=BODY, timeout=60):
    """Status and JSON."""
    url, kind = f"http://127.0.0.1:{port}{path}", {"Content-Type": "application/json"}
    asked = urllib.request.Request(url, data=body, headers=kind)
    with urllib.request.urlopen(asked, timeout=timeout) as said:
        return said.status, json.load(said)


def connected(port, sent=b"", *, buffer=None):
    client = socket.socket()
    if buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.settimeout(60)
    client.connect(("127.0.0.1", port))
    client.sendall(sent)
    return client


def head(length):
    return (
        "POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize(("most", "length"), [(0, 8 * 2**20), (64, 29 * 2**20)])
def test_who_still_sends_reads_why_it_is_refused(listening, most, length):
    _, inside, port = listening
    start = head(length).replace(b"Host", b"Connection: close\r\nHost", 1)
    inside._most, whole = most, start + bytes(length)
    with connected(port, whole[: 2**16]) as client:
        time.sleep(0.1)  # it is refused by now, were nothing waited for
        client.sendall(whole[2**16 :])
        said = b"".join(iter(lambda: client.recv(2**16), b""))
    assert said.startswith(b"HTTP/1.1 429" if not most else b"HTTP/1.1 413")


def test_who_asks_before_it_sends_is_refused_at_once(listening):
    _, inside, port = listening
    inside._most = 0
    asking = head(8 * 2**20).replace(b"Host", b"Expect: 100-continue\r\nHost", 1)
    with connected(port, asking) as client:
        assert client.recv(12) == b"HTTP/1.1 429"


def test_idle_half_and_vanished_clients_leave_room_for_others(listening):
    _, inside, port = listening
    connected(port, head(len(BODY)) + BODY).close()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connected(port))
        halves = [connected(port, head(len(BODY)) + BODY[:50]) for _ in range(20)]
        for half in halves:
            stack.enter_context(half)
        assert request(port)[0] == 200
        assert {half.recv(1 << 12).split(b" ")[1] for half in halves} == {b"408"}
        wait_for(lambda: inside._inside == 0)
        assert request(port, path="/healthz", body=None)[0] == 200


def test_who_does_not_read_is_dropped(listening, monkeypatch):
    """One answer is larger than what sockets hold, and the server has given up its connection."""
    running, _, port = listening
    monkeypatch.setattr(desk, "json_of", lambda said: bytes(20 * 2**20))
    with connected(port, head(len(BODY)) + BODY, buffer=1 << 12):
        wait_for(lambda: len(running.server_state.connections) == 1)
        wait_for(lambda: not running.server_state.connections)
        assert request(port, path="/healthz", body=None)[0] == 200


def test_who_stops_it_waits_for_what_is_inside(listening, segmenter, monkeypatch):
    running, _, port = listening
    may, real = threading.Event(), segmenter.answer
    met = threading.Event()

    def answer(rows):
        met.set()
        assert may.wait(60)
        return real(rows)

    monkeypatch.setattr(segmenter, "answer", answer)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        inside = pool.submit(request, port)
        assert met.wait(60)
        running.should_exit = True
        wait_for(lambda: not running.servers[0].is_serving())
        may.set()
        status, said = inside.result()
    assert status == 200 and len(said["answers"]) == 2
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.proof
def test_signals(tmp_path):
    """SIGTERM ends it with 0; after kill -9 it starts again on the same port."""
    command = [sys.executable, "launch.py", "--mode=serve", "--model=mini_sam", "--batch=1"]
    port, image = 0, base64.b64encode(encoded(photo())).decode()
    for sign, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 0)):
        here = subprocess.PIPE
        started = subprocess.Popen(
            [*command, f"--port={port}"], cwd=ROOT, stdout=here, stderr=here, text=True
        )
        port = int(re.search(r":(\d+),", started.stdout.readline())[1])
        body = json.dumps({"image": image, "prompts": [{"points": [[9, 9]]}]}).encode()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            inside = [pool.submit(request, port, body=body) for _ in range(4)]
            time.sleep(0.3 if sign == signal.SIGTERM else 2)
            started.send_signal(sign)
            answers = [one.exception() or one.result()[0] for one in inside]
        _, errors = started.communicate(timeout=60)
        assert started.returncode == status and "Traceback" not in errors
        if sign == signal.SIGTERM:
            assert answers == [200] * 4


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
