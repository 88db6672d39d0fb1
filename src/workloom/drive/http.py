"""The backend that is a server: OpenAI-compatible HTTP, streamed, on our own asyncio protocol.

Per call it costs the fresh text, one request of kept fragments and one timestamp per read. Everything that can go wrong
outside becomes a BackendError; a cancelled call closes its connection, which stops the work on the other side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from workloom.clock import RealClock
from workloom.drive.backend import Request
from workloom.drive.http1 import Connection, Endpoint, Pool, Stale
from workloom.drive.render import USER, Renderer
from workloom.drive.sse import Answer
from workloom.drive.text import Texts
from workloom.errors import BackendError, UsageError
from workloom.records import ChunkRun, Outcome

_PATHS = {"chat": "/chat/completions", "completions": "/completions"}
_OWN = ("model", "messages", "prompt", "max_tokens", "min_tokens", "stream")
"""Body fields that the workload decides."""
_LONGEST_LISTING = 1 << 24
"""Bytes of an answer to the preflight."""


class Preflight(Struct):
    """What a server said before the run. `models`: the names it lists, None when it lists nothing."""

    models: list[str] | None
    warning: str | None = None
    max_model_len: int | None = None
    """The model's longest call in tokens, where the server says it (vLLM and others do)."""


class HttpBackend:
    """Calls over HTTP to the server at `url` (up to and with ``/v1``), asking for `model`.

    `salt` makes the run's text unlike other runs'. `exact` asks for exactly the planned output (``min_tokens``,
    ``ignore_eos``). `headers` and `body` are extra header lines and body fields; a body field of None takes a default
    one (``ignore_eos``, ``stream_options``, ``min_tokens``) away.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        clock: RealClock,
        salt: int,
        endpoint: Literal["chat", "completions"] = "chat",
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        exact: bool = True,
        verify: bool = True,
    ) -> None:
        self.url = url
        self.model = model
        self.resent = 0
        """Calls sent again because a kept connection turned out to be closed."""
        self._clock = clock
        self._endpoint = Endpoint.parse(url, verify)
        self._pool = Pool(self._endpoint, clock.raw)
        self._common = _header_lines(self._endpoint, api_key, headers or {})
        chat = endpoint == "chat"
        self._renderer = Renderer(Texts(salt), chat)
        self._request = b"POST %s%s HTTP/1.1\r\n" % (self._endpoint.path.encode(), _PATHS[endpoint].encode())
        self._request += self._common + b"Content-Type: application/json\r\nContent-Length: "
        extra = dict(body or {})
        self._open = _body_start(model, chat, exact, extra)
        self._least = exact and "min_tokens" not in extra
        self._close = (b'"}]' if chat else b'"') + b',"max_tokens":%d'
        self._empty = b'{"role":"%s","content":"' % USER.encode() if chat else b""

    async def call(self, request: Request, on_chunk: Callable[[ChunkRun], None]) -> Outcome:
        lines = self._lines(request)
        connection = self._pool.idle()
        if connection is None:
            return await self._exchange(await self._pool.connect(), False, lines, request, on_chunk)
        try:
            return await self._exchange(connection, True, lines, request, on_chunk)
        except Stale:
            self.resent += 1
        outcome = await self._exchange(await self._pool.connect(), False, lines, request, on_chunk)
        outcome.resent = True
        return outcome

    async def _exchange(
        self,
        connection: Connection,
        reused: bool,
        lines: list[bytes],
        request: Request,
        on_chunk: Callable[[ChunkRun], None],
    ) -> Outcome:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        origin = self._clock.origin
        answer = Answer(done, on_chunk, origin, request.stop_after)
        sent_ns = connection.send(lines, answer)
        try:
            done_ns = await done
        except asyncio.CancelledError:
            connection.abort()
            if done.done() and not done.cancelled():
                done.exception()  # both at once: nobody is left to hear of it
            raise
        except BackendError as error:
            error.sent_ns = sent_ns - origin
            raise
        usage = answer.usage
        outcome = Outcome(done_ns - origin, sent_ns - origin, answer=answer.text(), finish=answer.finish)
        outcome.connection_reused = reused
        if usage is not None:
            outcome.prompt_tokens, outcome.output_tokens = usage.prompt_tokens, usage.completion_tokens
            if usage.prompt_tokens_details is not None:
                outcome.cached_tokens = usage.prompt_tokens_details.cached_tokens
        elif answer.finish == "hangup":
            outcome.output_tokens = answer.chunks
        return outcome

    def _lines(self, request: Request) -> list[bytes]:
        """The bytes of a request, ready to be handed over: head, fragments, tail."""
        rendered = self._renderer.render(request.prompt)
        tail = self._close % request.output_tokens
        tail += b',"min_tokens":%d}' % request.output_tokens if self._least else b"}"
        start = self._open if rendered.count else self._open + self._empty
        head = b"%s%d\r\n\r\n%s" % (self._request, len(start) + rendered.size + len(tail), start)
        return [head, *rendered.fragments, tail]

    async def probe(self, timeout_s: float = 10.0) -> Preflight:
        """Ask for the models before a run: a BackendError when no such server is there, a warning for less."""
        request = b"GET %s/models HTTP/1.1\r\n%s\r\n" % (self._endpoint.path.encode(), self._common)
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._pool.connect()
                whole = _Whole(asyncio.get_running_loop().create_future())
                try:
                    connection.send([request], whole)
                    body = await whole.done
                except asyncio.CancelledError:
                    connection.abort()
                    raise
        except TimeoutError:
            raise BackendError(
                "connect", f"no answer from {self.url}/models within {timeout_s:g} s", hint="is the server up?"
            ) from None
        return self._judge(whole.status, body)

    def _judge(self, status: int, body: bytes) -> Preflight:
        if status in (401, 403):
            raise BackendError(
                "status",
                f"{self.url} refuses access (status {status})",
                status=status,
                hint="set the API key in the environment",
            )
        if status != 200:
            return Preflight(None, f"{self.url}/models answers with status {status}: is the URL right (often .../v1)?")
        try:
            listing = msgspec.json.decode(body, type=_Models).data
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise BackendError(
                "protocol",
                f"{self.url}/models does not answer as an OpenAI-compatible server does",
                status=status,
                hint="is the URL right? It often ends in /v1",
            ) from None
        models = [entry.id for entry in listing]
        asked = self.model or (models[0] if len(models) == 1 else "")
        if asked in models:
            return Preflight(models, max_model_len=listing[models.index(asked)].max_model_len)
        listed = ", ".join(models[:8]) or "none"
        return Preflight(models, f"the server does not list the model {self.model!r} (it lists: {listed})")

    @property
    def connects(self) -> int:
        """Connections made so far."""
        return self._pool.connects

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()


class _Model(Struct):
    id: str
    max_model_len: int | None = None


class _Models(Struct):
    data: list[_Model]


class _Whole:
    """A sink that keeps the whole body."""

    def __init__(self, done: asyncio.Future[bytes]) -> None:
        self.status = 0
        self.done = done
        self._body = bytearray()

    def feed(self, body: bytes, at_ns: int) -> bool:
        self._body += body
        if len(self._body) > _LONGEST_LISTING:
            raise BackendError(
                "protocol",
                f"the list of models has no end in {_LONGEST_LISTING:,} bytes",
                status=self.status,
                hint="is the URL right? It often ends in /v1",
            )
        return False

    def end(self, at_ns: int) -> None:
        if not self.done.done():
            self.done.set_result(bytes(self._body))

    def lost(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


def _body_start(model: str, chat: bool, exact: bool, extra: dict[str, Any]) -> bytes:
    """The body up to where the prompt begins."""
    own = [name for name in extra if name in _OWN and not (name == "min_tokens" and extra[name] is None)]
    if own:
        raise UsageError(
            f"the body field {own[0]} is the workload's to set",
            hint="change the workload, or leave exact output lengths off for min_tokens",
        )
    fields: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    if exact:
        fields["ignore_eos"] = True
    fields.update(extra)
    try:
        start = msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
    except (TypeError, ValueError) as error:
        raise UsageError("the extra body fields are not JSON", found=error) from None
    return start[:-1] + (b',"messages":[' if chat else b',"prompt":"')


def _header_lines(endpoint: Endpoint, api_key: str | None, headers: Mapping[str, str]) -> bytes:
    """Header lines that every request carries."""
    lines = {"Host": endpoint.authority, "Accept": "text/event-stream, application/json", "User-Agent": "workloom"}
    key = (api_key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(
            "the API key cannot be sent: it holds control characters or is not ASCII",
            hint="look at the environment variable that holds it",
        )
    if key:
        lines["Authorization"] = f"Bearer {key}"
    named = {name.lower(): name for name in lines}
    for name, value in headers.items():
        lines.pop(named.get(name.lower(), name), None)
        lines[name] = value
    for name, value in lines.items():
        bad = not name or not name.isascii() or any(c in "\r\n: \t" for c in name)
        if bad or not (value.isascii() and value.isprintable()) or name.lower() in _FRAMING:
            raise UsageError(f"the header {name!r} cannot be sent", hint="a name and a line of ASCII text, no framing")
    return "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("ascii")


_FRAMING = ("content-length", "transfer-encoding", "connection", "content-type")
