"""The way through an HTTP proxy: which one the environment names, and a tunnel through it for TLS (CONNECT)."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from workloom.errors import UsageError

_LONGEST = 1 << 16
"""Bytes of a proxy's answer to CONNECT."""


class Proxy(Struct, frozen=True):
    """An HTTP proxy on the way to a server. `authorization` is the value of its header, a secret."""

    host: str
    port: int
    authorization: str | None = None

    @classmethod
    def parse(cls, url: str, where: str) -> Proxy:
        """The proxy of a URL like ``http://proxy:3128``; `where` names what it came from: the URL may hold a secret."""
        form = "http://host:port"
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port or 80
        except ValueError:
            raise UsageError("the URL of the proxy cannot be read", where=where, expected=form) from None
        if parts.scheme != "http" or not parts.hostname:
            raise UsageError(
                "the proxy is not one that can be used", where=where, expected=form, found=f"{parts.scheme}://"
            )
        authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(parts.hostname, port, authorization)


def proxy_from(environ: Mapping[str, str], host: str, port: int, tls: bool) -> Proxy | None:
    """The proxy that the environment names for a server; none for this machine itself."""
    if loopback(host) or _excepted(environ, host, port):
        return None
    scheme = "https" if tls else "http"
    for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"):
        url = environ.get(name, "").strip()
        if url:
            return Proxy.parse(url, f"the environment variable {name}")
    return None


def loopback(host: str) -> bool:
    """True for this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _excepted(environ: Mapping[str, str], host: str, port: int) -> bool:
    """Does NO_PROXY name the server? By its domain or one above it, with or without the port, or by network."""
    listed = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    for entry in listed.replace(" ", ",").split(","):
        name = entry.strip().lower().removeprefix("*").removeprefix(".")
        if entry.strip() == "*":
            return True
        if not name:
            continue
        if "/" in name and _within(host, name):
            return True
        for known in (host, f"{host}:{port}"):
            if known == name or known.endswith(f".{name}"):
                return True
    return False


def _within(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


async def tunnel(proxy: Proxy, host: str, port: int) -> asyncio.Transport:
    """A connection to a server through a proxy, with nothing said on it yet; an OSError when there is none."""
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[None] = loop.create_future()
    transport, _ = await loop.create_connection(lambda: _Opening(opened), proxy.host, proxy.port)
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {name} HTTP/1.1", f"Host: {name}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    try:
        transport.write("\r\n".join([*lines, "", ""]).encode())
        await opened
    except BaseException:
        transport.abort()
        raise
    return transport


class _Opening(asyncio.Protocol):
    """Waits for the proxy's yes."""

    def __init__(self, opened: asyncio.Future[None]) -> None:
        self._opened = opened
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self._opened.done():
            return
        if b"\r\n\r\n" not in self._head:
            if len(self._head) > _LONGEST:
                self._opened.set_exception(OSError("the proxy's answer has no end"))
            return
        status = self._head.split(b"\r\n", 1)[0].decode("latin-1")
        words = status.split(" ", 2)
        if words[0].startswith("HTTP/1.") and words[1:2] and words[1].startswith("2"):
            self._opened.set_result(None)
        else:
            self._opened.set_exception(OSError(f"the proxy answers {status[:80]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_exception(OSError(f"the proxy closed the connection{f': {exc}' if exc else ''}"))
