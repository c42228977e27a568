"""Who may ask: programs, and of pages only the server's own.

A page of another site can make a browser send requests to 127.0.0.1, and a name that an attacker
owns can be made to point there (DNS rebinding). The first carries a foreign `Origin` or a
`Sec-Fetch-Site` that says so, the second a foreign `Host`; both are refused before anything is
read.
"""

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
WITHIN = ("same-origin", "none")  # of Sec-Fetch-Site; "none" is an address that a person typed
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """What is right for a server that listens on `host`.

    `any_name`: also under names that are not known here, where a token is asked for, which a
    stranger's page does not have.
    """

    def __init__(self, host: str, *, any_name: bool = False):
        self._any_name = any_name
        self._any_address = host in ("", "0.0.0.0", "::")
        own = {host} if is_loopback(host) else {host, socket.gethostname()}
        self._names = LOOPBACK | {name.lower() for name in own if name}

    def refusal(self, headers: Any) -> str | None:
        """Why a request is refused, in a sentence; None where it is not.

        `headers` has a method `get`. Ports are not compared: a tunnel may bring the page from
        another one.
        """
        host = headers.get("Host", "")
        if not self._is_ours(host):
            return f"the host {host[:80]!r} is not this server's; ask it by the address it printed."
        origin = headers.get("Origin")
        if origin is not None and _netloc(origin) != host.lower():
            return f"a page of {origin[:80]!r} asked; only the server's own page may."
        if headers.get("Sec-Fetch-Site", "none") not in WITHIN:
            return "a page of another site asked; only the server's own page may."
        return None

    def _is_ours(self, host: str) -> bool:
        name = _name(host)
        if name is None:
            return False
        return self._any_name or name in self._names or (self._any_address and _is_address(name))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host.lower() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def _name(host: str) -> str | None:
    """Of "name:port", without the brackets of an IPv6 address; None of what has another form."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018  raises ValueError for what is no port
    except ValueError:
        return None
    plain = parts.netloc == host and not (parts.username or parts.path or parts.query)
    return parts.hostname if plain else None


def _netloc(origin: str) -> str | None:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
