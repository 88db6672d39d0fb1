"""What a server says before a run: which models it serves, and how long their contexts are."""

from __future__ import annotations

import asyncio

import msgspec
from msgspec import Struct

from workloom.drive.http1 import Pool
from workloom.errors import BackendError

_LONGEST_LISTING = 1 << 24
"""Bytes of an answer to the preflight."""
_NOT_OPENAI = "is the URL right? It often ends in /v1"


class Preflight(Struct):
    """What a server said before the run. `models`: the names it lists, None when it lists nothing."""

    models: list[str] | None
    warning: str | None = None
    max_model_len: int | None = None
    """The model's longest call in tokens, where the server says it (vLLM and others do); the least of several."""


async def ask(pool: Pool, request: bytes, url: str, wanted: list[str], timeout_s: float) -> Preflight:
    """Ask one server for its models: a BackendError when no such server is there, a warning for less."""
    try:
        async with asyncio.timeout(timeout_s):
            connection = await pool.connect()
            whole = _Whole(asyncio.get_running_loop().create_future())
            try:
                connection.send([request], whole)
                body = await whole.done
            except asyncio.CancelledError:
                connection.abort()
                raise
    except TimeoutError:
        raise BackendError(
            "connect", f"no answer from {url}/models within {timeout_s:g} s", hint="is the server up?"
        ) from None
    return _judge(whole.status, body, url, wanted)


def both(one: Preflight, other: Preflight) -> Preflight:
    """What two servers said, as one: models that both serve, the first warning, the shorter context."""
    models = one.models
    if models is not None and other.models is not None:
        models = [name for name in models if name in other.models]
    lengths = [each.max_model_len for each in (one, other) if each.max_model_len is not None]
    return Preflight(models, one.warning or other.warning, min(lengths, default=None))


def _judge(status: int, body: bytes, url: str, wanted: list[str]) -> Preflight:
    if status in (401, 403):
        raise BackendError(
            "http_status",
            f"{url} refuses access (status {status})",
            status=status,
            hint="set the API key in the environment",
        )
    if status != 200:
        return Preflight(None, f"{url}/models answers with status {status}: is the URL right (often .../v1)?")
    try:
        listing = msgspec.json.decode(body, type=_Models).data
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BackendError(
            "malformed",
            f"{url}/models does not answer as an OpenAI-compatible server does",
            status=status,
            hint=_NOT_OPENAI,
        ) from None
    models = [entry.id for entry in listing]
    asked = [name or (models[0] if len(models) == 1 else "") for name in wanted]
    lengths = [entry.max_model_len for entry in listing if entry.id in asked and entry.max_model_len is not None]
    found = Preflight(models, max_model_len=min(lengths, default=None))
    missing = next((name for name in asked if name not in models), None)
    if missing is not None:
        listed = ", ".join(models[:8]) or "none"
        found.warning = f"the server does not list the model {missing!r} (it lists: {listed})"
    return found


class _Model(Struct):
    id: str
    max_model_len: int | None = None


class _Models(Struct):
    data: list[_Model]


class _Whole:
    """A sink that keeps the whole body."""

    def __init__(self, done: asyncio.Future[bytes]) -> None:
        self.status = 0
        self.head = b""
        self.done = done
        self._body = bytearray()

    def feed(self, body: bytes, at_ns: int) -> bool:
        self._body += body
        if len(self._body) > _LONGEST_LISTING:
            raise BackendError(
                "malformed",
                f"the list of models has no end in {_LONGEST_LISTING:,} bytes",
                status=self.status,
                hint=_NOT_OPENAI,
            )
        return False

    def end(self, at_ns: int) -> None:
        if not self.done.done():
            self.done.set_result(bytes(self._body))

    def lost(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
