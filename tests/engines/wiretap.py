"""A relay between workloom and an engine that keeps what was said: the server's own word on every call of a run."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from engines.servers import Server, events


@dataclass
class Exchange:
    """One request and what came back, as bytes of HTTP."""

    asked: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)
    asked_ns: int = 0
    """When the first of the request came by."""
    came: list[tuple[int, int]] = field(default_factory=list)
    """Of every read of the answer, how long the answer was then, and when."""

    @property
    def path(self) -> str:
        return self.asked.split(b" ", 2)[1].decode()

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that was sent."""
        body: dict[str, Any] = json.loads(self.asked.partition(b"\r\n\r\n")[2])
        return body

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of the answer."""
        return events(_unchunked(bytes(self.answered)).decode())

    @property
    def content_ms(self) -> list[float]:
        """When each chunk of a chat answer that says something came by, counted from the request."""
        said = []
        for event in re.finditer(rb"^data: ?(\{.*\})", self.answered, re.MULTILINE):
            if any(choice["delta"].get("content") for choice in json.loads(event[1])["choices"]):
                _, at_ns = self.came[bisect_left(self.came, (event.end(), 0))]
                said.append((at_ns - self.asked_ns) / 1e6)
        return said

    @property
    def text(self) -> str:
        """What a chat answer says."""
        return "".join(c["delta"].get("content") or "" for e in self.events for c in e["choices"])


class Wiretap:
    """What went through, in order of the requests."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._open: list[socket.socket] = []

    @property
    def calls(self) -> list[Exchange]:
        """The inference calls that were answered: one sent into a connection that had just been closed comes again."""
        return [each for each in self.exchanges if each.asked.startswith(b"POST") and each.answered]

    def accept(self, listener: socket.socket, server: Server) -> None:
        """Relay every connection until the listener is closed."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", server.port))
            for end in (client, there):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.append(end)
            exchange: list[Exchange] = []
            threading.Thread(target=self._ask, args=(client, there, exchange), daemon=True).start()
            threading.Thread(target=self._answer, args=(there, client, exchange), daemon=True).start()

    def _ask(self, client: socket.socket, there: socket.socket, current: list[Exchange]) -> None:
        for data in _reads(client):
            if not current or current[-1].answered:  # the answer before has come: this is the next request
                current.append(Exchange(asked_ns=time.perf_counter_ns()))
                self.exchanges.append(current[-1])
            current[-1].asked += data
            with suppress(OSError):
                there.sendall(data)
        _shut(there)

    def _answer(self, there: socket.socket, client: socket.socket, current: list[Exchange]) -> None:
        for data in _reads(there):
            current[-1].answered += data
            current[-1].came.append((len(current[-1].answered), time.perf_counter_ns()))
            with suppress(OSError):
                client.sendall(data)
        _shut(client)

    def close(self) -> None:
        for end in self._open:
            end.close()


@contextmanager
def tapped(server: Server) -> Iterator[tuple[Server, Wiretap]]:
    """The server seen through a relay of its own port, and what goes through."""
    tap = Wiretap()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=tap.accept, args=(listener, server), daemon=True)
        thread.start()
        try:
            yield Server(listener.getsockname()[1], server.log), tap
        finally:
            _shut(listener)
            thread.join(5)
            tap.close()


def _reads(end: socket.socket) -> Iterator[bytes]:
    """What comes, acknowledged at once.

    A server that leaves Nagle's algorithm on (Dynamo's) holds its first chunk back until its headers are acknowledged,
    which the kernel may put off for 40 ms.
    """
    while True:
        try:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            data = end.recv(1 << 16)
        except OSError:
            return
        if not data:
            return
        yield data


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _unchunked(response: bytes) -> bytes:
    """The body of an HTTP response."""
    head, _, rest = response.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return rest
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        body, rest = body + rest[:length], rest[length + 2 :]
        if not length:
            break
    return body
