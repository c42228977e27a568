"""A bucket on loopback that speaks Google's protocol, for this process and those that it starts."""

import contextlib
import functools
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from dit_jax.storage import objects

pytest.importorskip("gcsfs", reason="the extra `gcs`")
pytest.importorskip("gcp_storage_emulator", reason="a bucket on loopback")
from gcp_storage_emulator import server as emulator
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

NAME = "bucket"


class Handler(RequestHandler):
    """The emulator's with generations, as Google has them and TensorStore needs; has bad days."""

    def do(self, method: str) -> None:
        if self.server.trouble is not None and self.server.trouble(self):
            return
        gone = contextlib.suppress(BrokenPipeError, ConnectionResetError)
        with self.server.lock, gone:  # the emulator is made for one request at a time
            if status := self.unmet():
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_error(status)
            else:
                getattr(RequestHandler, f"do_{method}")(self)

    def unmet(self) -> int | None:
        """The answer where an object's generation, "0" of none, is not what is asked for."""
        query = parse_qs(urlsplit(self.path).query)
        there = self.generation(query) if "ifGeneration" in self.path else ""
        if there != query.get("ifGenerationMatch", [there])[0]:
            return 412
        return 304 if there == query.get("ifGenerationNotMatch", [None])[0] else None

    def generation(self, query: dict[str, list[str]]) -> str:
        if self.command == "GET":
            name = unquote(urlsplit(self.path).path.rpartition("/o/")[2])
        elif "name" in query:
            (name,) = query["name"]
        else:
            (name,) = re.findall(r'"name": "([^"]+)"', self.rfile.peek(2000).decode("latin-1"))
        return self.server.objects().get(name, {}).get("generation", "0")

    def end_headers(self) -> None:
        if self.command == "GET":
            self.send_header("x-goog-generation", self.generation({}))
        super().end_headers()


def exactly(handler: Handler, query: dict[str, list[str]]) -> Any:
    """`emulator._read_data`, which takes a last "\\r" of the data for a part of a line's end."""
    kind = handler.headers.get("Content-Type", "")
    if not kind.startswith("multipart/related"):
        return READ_DATA(handler, query)
    boundary = re.search(r'boundary="?([^";]+)', kind)[1].encode()
    _, meta, data, _ = emulator._read_raw_data(handler).split(b"--" + boundary)
    head, _, body = data.partition(b"\n\n")
    (said,) = re.findall(rb"Content-Type: (\S+)", head)
    noted = json.loads(meta.partition(b"\n\n")[2])
    return {"meta": noted, "content": body.removesuffix(b"\n"), "content-type": said.decode()}


READ_DATA, emulator._read_data = emulator._read_data, exactly

for _method in ("GET", "POST", "DELETE", "PUT", "PATCH"):
    setattr(Handler, f"do_{_method}", functools.partialmethod(Handler.do, _method))


class Bucket(ThreadingHTTPServer):
    """`gs://bucket`; `trouble` may answer a request in the emulator's place: whether it did."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        self.storage, self.lock = Storage(use_memory_fs=True), threading.Lock()
        self.trouble: Callable[[Handler], bool] | None = None
        buckets.create_bucket(NAME, self.storage)
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, self.storage))

    def objects(self) -> dict[str, dict[str, Any]]:
        return self.storage.objects.get(NAME, {})

    def names(self, folder: str = "") -> set[str]:
        """Names of all objects in a folder."""
        return {name for name in list(self.objects()) if name.startswith(folder)}

    def read(self, name: str) -> bytes:
        return self.storage.get_file(NAME, name)

    def environment(self) -> dict[str, str]:
        here = f"http://127.0.0.1:{self.server_port}"
        return {
            "STORAGE_EMULATOR_HOST": here,
            "TENSORSTORE_GCS_HTTP_URL": here,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "NO_GCE_CHECK": "true",  # nobody is asked who we are
        }

    def handle_error(self, request, client_address) -> None:
        """A client that went away is not worth a traceback."""


def unavailable(handler: Handler) -> bool:
    handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    handler.send_error(503)
    return True


def dropped(handler: Handler) -> bool:
    handler.connection.shutdown(socket.SHUT_RDWR)
    return True


@contextlib.contextmanager
def bucket() -> Iterator[Bucket]:
    """A fresh one, with this process's environment set for it."""
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    with Bucket() as server, mock.patch.dict("os.environ", server.environment()):
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        objects._store.cache_clear()
        yield server
        server.shutdown()
    objects._store.cache_clear()


@contextlib.contextmanager
def for_a_while(server: Bucket, trouble: Callable, *, seconds: float) -> Iterator[None]:
    """Every request meets trouble, from now on until then."""
    until = time.monotonic() + seconds

    def now(handler: Handler) -> bool:
        return time.monotonic() < until and trouble(handler)

    server.trouble = now
    yield
    server.trouble = None
