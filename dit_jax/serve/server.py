"""`--mode=serve` and `--mode=demo`: one model's server, on this machine."""

import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from dit_jax.predict import Segmenter
from dit_jax.serve.guard import is_loopback

QUICKSTART, SHIPPED = "runs/quickstart/model", "mini"
HOST, PORT = "127.0.0.1", 8000
BATCH, DEADLINE, MOST = 8, 60.0, 64
CONNECTIONS = 512  # beyond these, 503 at once
TOKEN = "DIT_JAX_TOKEN"  # of the environment: a command line can be read by others


def serve(
    model: str | None,
    *,
    host: str = HOST,
    port: int = PORT,
    batch: int = BATCH,
    deadline: float = DEADLINE,
    most: int = MOST,
    allow_swap: bool = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM, then finish what runs; without a model, the quickstart's or
    the package's. For the rest see `make_server`."""
    model = chosen(model)
    server, served, listening = make_server(
        Segmenter.from_pretrained(model, batch_size=batch),
        name=model,
        host=host,
        port=port,
        deadline=deadline,
        most=most,
        allow_swap=allow_swap,
    )
    from dit_jax.serve.warm import warm

    shown, port = f"[{host}]" if ":" in host else host, listening.getsockname()[1]
    print(f"{model} is served at http://{shown}:{port}, described at /docs (Ctrl-C ends it).")
    if not is_loopback(host) and not os.environ.get(TOKEN):
        print(f"warning: {host} can be reached from other machines, and nobody is asked who it is.")
    print("It is compiled meanwhile; a mask that is asked for before waits for that.", flush=True)
    threading.Thread(target=warm, args=(served.segmenter, served.ready), daemon=True).start()
    for one in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again when it is done
        signal.signal(one, lambda *_: None)
    server.run(sockets=[listening])
    # Nobody waits for what still computes or compiles. It cannot be interrupted, and Python's own
    # end would wait for it.
    os._exit(0)


def chosen(model: str | None) -> str:
    """The model: the given one, the quickstart's where it was made, or the package's."""
    return model or (QUICKSTART if Path(QUICKSTART).is_dir() else SHIPPED)


def make_server(
    segmenter: Segmenter, *, name: str, host: str, port: int, deadline: float, **how: Any
) -> tuple[Any, Any, socket.socket]:
    """A uvicorn server, its `Served`, and the socket that listens already; port 0 is any free one.

    Raises ValueError for an impossible port, OSError for one that is taken, ModuleNotFoundError
    without the extra `demo`. For the rest see `make_app`.
    """
    try:
        import uvicorn

        from dit_jax.serve.app import make_app
        from dit_jax.serve.desk import Served
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the server needs {error.name}: pip install 'dit_jax[demo]'."
        ) from error
    if not 0 <= port <= 65535:
        raise ValueError(f"--port is {port}; expected 1 to 65535, or 0 for any free one.")
    listening = _listen(host, port, patience=deadline)
    served = Served(name, segmenter)
    token = os.environ.get(TOKEN) or None
    app = make_app(served, host=host, token=token, deadline=deadline, **how)
    limits = dict(limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=int(deadline) + 1)
    about = dict(lifespan="off", ws="none", log_level="error", access_log=False)
    config = uvicorn.Config(app, **limits, **about, server_header=False, proxy_headers=False)
    return uvicorn.Server(config), served, listening


def _listen(host: str, port: int, *, patience: float) -> socket.socket:
    """A socket whose connections are dropped where a client reads nothing for `patience` seconds:
    uvicorn would keep such an answer for ever."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=CONNECTIONS)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error}; try --port=0.") from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * patience))
    return listening
