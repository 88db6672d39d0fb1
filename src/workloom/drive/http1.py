"""HTTP/1.1 for calls that stream: a connection is an asyncio protocol, one timestamp is taken per read.

A connection carries one exchange at a time. What comes back is handed to the exchange's :class:`Sink` as the bodies of
whole reads; httptools takes the headers and the chunks apart. There is no queueing: a call that finds no idle
connection gets a new one, so waiting is never counted as the server's.

    idle --send--> sending --first byte--> answering --end of message--> idle (kept) or closed
                      |                        |
                      +---- connection lost ---+--> the sink hears `lost`
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools
from msgspec import Struct

from workloom.drive.tunnel import Proxy, tunnel
from workloom.errors import BackendError, UsageError


class Sink(Protocol):
    """What an exchange's answer goes to. Instants are raw readings of the run's counter; an exception ends it."""

    status: int
    head: bytes
    """The headers, of an answer whose status is no success."""

    def feed(self, body: bytes, at_ns: int) -> bool:
        """Body bytes of one read; True to hang up."""
        ...

    def end(self, at_ns: int) -> None:
        """The message is complete."""
        ...

    def lost(self, error: Exception) -> None:
        """There will be no more: a BackendError, or :class:`Stale`."""
        ...


_LONGEST_HEAD = 1 << 16
"""Bytes that may come before the end of the headers."""


class Stale(Exception):
    """A reused connection turned out to be closed before any byte of the answer: the exchange may be tried again."""


class Endpoint(Struct, frozen=True):
    """Where a server is: `path` has no slash at its end; `tls` None for plain HTTP."""

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None = None
    proxy: Proxy | None = None

    @classmethod
    def parse(cls, url: str, verify: bool = True, ca_file: str | None = None) -> Endpoint:
        """The endpoint of a URL like ``http://127.0.0.1:8000/v1``; a UsageError for anything else.

        `ca_file` holds the certificates to trust instead of the system's; without `verify` all are.
        """
        where, form = _shown_url(url), "http(s)://host[:port]/path"
        try:
            parts = urlsplit(url)
            if "@" in parts.netloc:
                raise UsageError(
                    "the URL holds a user name or a password",
                    where=where,
                    expected=form,
                    hint="send them in a header: --header 'Authorization: Basic ...'",
                )
            port = parts.port
            (parts.hostname or "").encode("idna")
        except (ValueError, UnicodeError) as error:
            found = None if "@" in url else error  # it may quote a password
            raise UsageError("the URL cannot be read", where=where, expected=form, found=found) from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("the URL is not one of a server", where=where, expected=form, hint="add http://")
        if not url.isascii() or not url.isprintable() or any(c in "?# " for c in url):
            raise UsageError(
                "the URL has parts that a base URL cannot have", where=where, expected="ASCII without ?, # or spaces"
            )
        tls = _tls(verify, ca_file) if parts.scheme == "https" else None
        return cls(parts.hostname, port or (443 if tls else 80), parts.path.rstrip("/"), tls)

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def _tls(verify: bool, ca_file: str | None) -> ssl.SSLContext:
    try:
        tls = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            "the file of certificates cannot be read", where=ca_file, expected="certificates in PEM form", found=error
        ) from None
    if not verify:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls


def _shown_url(url: str) -> str:
    """A URL for a message, without what may be a secret: its query, and whatever stands before an @."""
    scheme = re.match(r"[A-Za-z][\w+.-]*://|", url)
    start = scheme[0] if scheme else ""
    rest = url[len(start) :]
    base = re.split("[?#]", rest, maxsplit=1)[0]
    at = rest.rfind("@")
    if at < 0:
        return start + base
    return f"{start}***@{base[at + 1 :]}" if at < len(base) else f"{start}***"


class Traffic:
    """What the connections of a run took: counts that only grow."""

    __slots__ = ("handling_ns", "received", "sent")

    def __init__(self) -> None:
        self.handling_ns = 0
        """Time spent on what was read: parsing, stamping, handing on."""
        self.received = 0
        """Bytes read, headers and chunk sizes included; below TLS they are more."""
        self.sent = 0
        """Bytes handed over to be sent."""


LINGER_S = 1.0
"""So long the end of a body may come behind the last word of the answer in it. (Host time: it guards a connection.)"""


class Connection(asyncio.Protocol):
    """One connection. `raw` is the counter that stamps reads and the moment of sending."""

    def __init__(
        self, raw: Callable[[], int], park: Callable[[Connection], None], traffic: Traffic | None = None
    ) -> None:
        self._raw = raw
        self._traffic = traffic or Traffic()
        self._park = park
        """Called when an exchange has ended and the connection can carry another."""
        self._sink: Sink | None = None
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # httptools calls it with every piece of a body
        self._parser = httptools.HttpResponseParser(self)
        self._head = bytearray()
        """The reads up to the end of the headers."""
        self._complete = False
        self._last = 0
        """Body pieces of this read that belong to the complete answer."""
        self._keep = False
        self.alive = True
        self.used = 0
        """Exchanges begun on this connection."""
        self.received = 0
        """Bytes read in this exchange."""

    @property
    def usable(self) -> bool:
        """False once the other side is known to have gone."""
        return self.alive and not self._transport.is_closing()

    # --- exchanges

    def send(self, lines: Sequence[bytes], sink: Sink) -> int:
        """Send a request whose answer goes to `sink`; return when its first byte was handed over."""
        self._sink = sink
        self._head.clear()
        self._complete = False
        self.received = 0
        self.used += 1
        at_ns = self._raw()
        self._transport.writelines(lines)
        return at_ns

    def abort(self) -> None:
        """Close at once, whatever is going on; the sink hears nothing more."""
        self._sink = None
        self.alive = False
        self._transport.abort()

    # --- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by their type
        self._transport.set_write_buffer_limits(high=0)  # uvloop: write now, not at the end of the round

    def data_received(self, data: bytes) -> None:
        at_ns = self._raw()
        sink = self._sink
        if sink is None:  # nothing was asked
            self.abort()
            return
        self.received += len(data)
        if not sink.status:
            self._head += data
        broken = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._keep = False
            hint = _TLS_THERE if data[:2] == _TLS_ALERT else _NOT_HTTP
            broken = BackendError("malformed", f"the server does not speak HTTP: {_shown(data)}", hint=hint)
        if not sink.status and broken is None and len(self._head) > _LONGEST_HEAD:
            broken = BackendError("malformed", f"the headers have no end in {_LONGEST_HEAD:,} bytes", hint=_NOT_HTTP)
        try:
            self._pass_on(sink, at_ns, broken)
        except Exception as error:
            self._fail(sink, error)
        traffic = self._traffic
        traffic.received += len(data)
        traffic.handling_ns += self._raw() - at_ns

    def _pass_on(self, sink: Sink, at_ns: int, broken: BackendError | None) -> None:
        """Hand on what a read held of the body, then what became of the message."""
        parts = self._parts
        if self._complete:
            del parts[self._last :]
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            if sink.feed(body, at_ns):
                self.abort()
                return
        if self._complete:
            self._finish(sink, at_ns)
        elif broken is not None:
            self._fail(sink, broken)
        elif getattr(sink, "closed_ns", 0) == at_ns:
            asyncio.get_running_loop().call_later(LINGER_S, self._linger, sink)

    def _linger(self, sink: Sink) -> None:
        """The answer had its last word a while ago, and the body has no end: it was the end."""
        if self._sink is sink:
            self.abort()
            try:
                sink.end(getattr(sink, "closed_ns", 0))
            except Exception as error:
                sink.lost(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        sink, self._sink = self._sink, None
        if sink is None:
            return
        if sink.status and not exc and not self._delimited():
            try:
                sink.end(self._raw())
            except Exception as error:
                sink.lost(error)
        elif not self._head and self.used > 1:
            sink.lost(Stale())
        else:
            began = bool(sink.status)
            kind, when = ("truncated", "in the middle of its answer") if began else ("disconnect", "without an answer")
            why = f": {exc}" if exc else ""
            sink.lost(BackendError(kind, f"the server closed the connection {when}{why}", status=sink.status or None))

    # --- httptools calls these

    def on_message_begin(self) -> None:
        if self._complete:  # a second answer behind the one that was asked for
            self._keep = False

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        sink = self._sink
        if status >= 200 and sink is not None and not self._complete:
            sink.status = status
            if status >= 300:
                sink.head = bytes(self._head)

    def on_message_complete(self) -> None:
        if self._sink is not None and self._sink.status and not self._complete:
            self._complete = True
            self._last = len(self._parts)
            self._keep = self._parser.should_keep_alive()  # a moment later it has forgotten

    # ---

    def _finish(self, sink: Sink, at_ns: int) -> None:
        self._sink = None
        if self._keep and not self._transport.get_write_buffer_size():
            self._park(self)
        else:
            self.abort()
        try:
            sink.end(at_ns)
        except Exception as error:
            sink.lost(error)

    def _fail(self, sink: Sink, error: Exception) -> None:
        self.abort()
        sink.lost(error)

    def _delimited(self) -> bool:
        """True when the headers said where the body ends, so that the end of the connection is not it."""
        head = self._head.split(b"\r\n\r\n", 1)[0].lower()
        return b"\ncontent-length:" in head or (b"\ntransfer-encoding:" in head and b"chunked" in head)


_TLS_ALERT = b"\x15\x03"
"""How a server that expects TLS begins to refuse what is none."""
_TLS_THERE = "the port speaks TLS: try https://"
_NOT_HTTP = "is the port that of an OpenAI-compatible server, and http(s) right?"


def _shown(data: bytes) -> str:
    """The beginning of what a server sent, for a message."""
    return repr(data[:60].decode("utf-8", "replace"))


def _way_out(error: Exception, tls: bool) -> str:
    """What to do about a connection that was not to be had."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "give its certificate with --ca-file FILE, or do not check it: --insecure"
    if isinstance(error, ssl.SSLError) or (tls and isinstance(error, ConnectionResetError | ConnectionAbortedError)):
        return "does the port speak TLS at all? If not, try http://"
    return "is the server up, and the URL right?"


class Pool:
    """Connections to one endpoint: as many as there are exchanges in flight, the last used is used next."""

    def __init__(
        self,
        endpoint: Endpoint,
        raw: Callable[[], int],
        traffic: Traffic | None = None,
        connect_timeout_s: float | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._raw = raw
        self._traffic = traffic or Traffic()
        self._timeout_s = connect_timeout_s
        self._idle: list[Connection] = []
        self.connects = 0
        """Connections made."""

    def idle(self) -> Connection | None:
        """The connection used last, if one is free."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def connect(self) -> Connection:
        """A new connection; a BackendError of kind `connect` when there is none to be had."""
        end = self.endpoint
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._open()
        except (OSError, ValueError, RuntimeError, OverflowError) as error:
            said: object = error
            if isinstance(error, TimeoutError) and not str(error):
                said = f"no connection within {self._timeout_s:g} s" if self._timeout_s else "timed out"
            way = f" by way of the proxy {end.proxy.host}:{end.proxy.port}" if end.proxy is not None else ""
            raise BackendError(
                "connect",
                f"cannot connect to {end.authority}{way}: {said or type(error).__name__}",
                hint=_way_out(error, end.tls is not None),
            ) from error
        self.connects += 1
        return connection

    async def _open(self) -> Connection:
        end, loop = self.endpoint, asyncio.get_running_loop()
        if end.proxy is None:
            _, connection = await loop.create_connection(self._new, end.host, end.port, ssl=end.tls)
        elif end.tls is None:
            _, connection = await loop.create_connection(self._new, end.proxy.host, end.proxy.port)
        else:
            transport = await tunnel(end.proxy, end.host, end.port)
            connection = self._new()
            try:
                tls = await loop.start_tls(transport, connection, end.tls, server_hostname=end.host)
            except BaseException:
                transport.abort()
                raise
            assert tls is not None
            connection.connection_made(tls)
        return connection

    def _new(self) -> Connection:
        return Connection(self._raw, self._idle.append, self._traffic)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().abort()
