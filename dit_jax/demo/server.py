"""`--mode=demo`: the page of one model, on this machine."""

import os
import socket
import threading
from pathlib import Path
from typing import Any

from dit_jax.demo.guard import is_loopback
from dit_jax.demo.warm import warm
from dit_jax.predict import Segmenter

QUICKSTART, SHIPPED = Path("runs/quickstart/model"), Path("mini_sam")
HOST, PORT = "127.0.0.1", 8000
THREADS = 4
SLACK = 4096  # bytes beyond the largest upload, so that Flask says in words that it is too large


def serve(model_dir: Path | None, *, host: str = HOST, port: int = PORT) -> None:
    """Serve the page until Ctrl-C; without a model, the quickstart's or the package's."""
    folder = chosen(model_dir)
    segmenter = Segmenter.from_pretrained(folder, batch_size=1)  # one shape to compile, not four
    ready = threading.Event()
    server = make_server(segmenter, name=str(folder), host=host, port=port, ready=ready)
    shown = f"[{host}]" if ":" in host else host
    print(f"The demo of {folder} is at http://{shown}:{server.effective_port} (Ctrl-C ends it).")
    if not is_loopback(host):
        print(f"warning: {host} can be reached from other machines, and nobody is asked who it is.")
    print("It is compiled meanwhile; a mask that is asked for before waits for that.", flush=True)
    threading.Thread(target=warm, args=(segmenter, ready), daemon=True).start()
    server.run()
    if not ready.is_set():  # compiling cannot be interrupted, and Python's own end would abort
        os._exit(0)


def chosen(model_dir: Path | None) -> Path:
    """The model directory: the given one, the quickstart's where it was made, or the package's."""
    if model_dir is not None:
        return model_dir
    return QUICKSTART if QUICKSTART.is_dir() else SHIPPED


def make_server(
    segmenter: Segmenter,
    *,
    name: str,
    host: str,
    port: int,
    ready: threading.Event | None = None,
) -> Any:
    """A waitress server that listens already; port 0 is any free one. `ready`: see `make_app`."""
    try:
        import waitress

        from dit_jax.demo.app import LARGEST_UPLOAD, make_app
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the demo needs {error.name}: pip install 'dit_jax[demo]'."
        ) from error
    if not 0 <= port <= 65535:
        raise ValueError(f"--port is {port}; expected 1 to 65535, or 0 for any free one.")
    listening = _listen(host, port)
    app = make_app(segmenter, name=name, host=host, ready=ready)
    limits = dict(max_request_body_size=LARGEST_UPLOAD + SLACK, connection_limit=64)
    return waitress.create_server(app, sockets=[listening], threads=THREADS, **limits)


def _listen(host: str, port: int) -> socket.socket:
    """A socket of its own: waitress leaves one open where it cannot be bound."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error}; try --port=0.") from error
