"""What a server says before a run: which models it serves, and how long their contexts are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import msgspec
from msgspec import Struct

from workloom.drive.faults import refused
from workloom.drive.http1 import Pool
from workloom.errors import BackendError

_LONGEST_LISTING = 1 << 24
"""Bytes of an answer to the preflight."""
_NOT_OPENAI = "is the URL right? It often ends in /v1"
_PROPS_S = 2.0
"""Seconds for a page that most servers do not have."""
_LONGEST_SAID = 200
"""Letters of what a server says to a refusal."""


class Model(Struct):
    """An entry of the list of models. Beside the id servers write what they like, which is no fault of the list."""

    id: str
    owned_by: object = None
    max_model_len: object = None
    context_length: object = None
    meta: object = None


class Models(Struct):
    """The list of models of an OpenAI-compatible server."""

    data: list[Model]


class _Generation(Struct):
    n_ctx: object = None


class _Props(Struct):
    """llama.cpp's /props."""

    default_generation_settings: _Generation | None = None


Page = Callable[[], Awaitable[bytes | None]]
"""Gets a page; None where there is none."""


async def longest_call(models: Iterable[Model], props: Page) -> tuple[int, str] | None:
    """The longest call that fits these models, in tokens, and where the server says so; None: nowhere.

    vLLM and SGLang list `max_model_len`, others `context_length`, llama.cpp the context of a slot in `meta.n_ctx`; its
    older versions tell it in /props alone. Of several models it is the shortest.
    """
    told = [length for model in models if (length := _listed(model)) is not None]
    if told:
        return min(told)
    page = await props()
    try:
        settings = msgspec.json.decode(page, type=_Props).default_generation_settings if page else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # a page of something else
    context = _whole(settings.n_ctx) if settings is not None else None
    return (context, "n_ctx of a slot in /props") if context is not None else None


def _listed(model: Model) -> tuple[int, str] | None:
    meta = model.meta if isinstance(model.meta, dict) else {}
    for value, name in (
        (model.max_model_len, "max_model_len"),
        (model.context_length, "context_length"),
        (meta.get("n_ctx"), "meta.n_ctx"),
    ):
        if (length := _whole(value)) is not None:
            return length, f"{name} in the list of models"
    return None


def _whole(value: object) -> int | None:
    """A number of tokens, if it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


class Preflight(Struct):
    """What a server said before the run. `models`: the names it lists, None when it lists nothing."""

    models: list[str] | None
    warning: str | None = None
    max_model_len: int | None = None
    """The model's longest call in tokens, where the server says it; the least of several."""
    hint: str | None = None
    """What to do about the warning."""


async def ask(pool: Pool, request: bytes, url: str, wanted: list[str], timeout_s: float) -> Preflight:
    """Ask one server for its models: a BackendError when no such server is there, a warning for less."""
    other = "http" if pool.endpoint.tls is not None else "https"
    try:
        status, body = await _get(pool, request, timeout_s)
    except TimeoutError:
        raise BackendError(
            "connect",
            f"no answer from {url}/models within {timeout_s:g} s",
            hint=f"is the server up, or does it speak {other}:// on this port?",
        ) from None
    except BackendError as fault:
        if fault.kind == "disconnect" and fault.hint is None:
            hint = f"if the port speaks {'TLS' if other == 'https' else 'plain HTTP'}, try {other}://"
            raise BackendError(fault.kind, fault.what, hint=hint) from fault
        raise
    found, asked = _judge(status, body, url, wanted)

    async def props() -> bytes | None:
        with suppress(BackendError, TimeoutError):  # a page that few have: whatever comes of it, the list was heard
            status, page = await _get(pool, _elsewhere(request, b"/props"), min(timeout_s, _PROPS_S))
            return page if status == 200 else None
        return None

    if found.models is not None and (length := await longest_call(asked, props)) is not None:
        found.max_model_len = length[0]
    return found


async def _get(pool: Pool, request: bytes, timeout_s: float) -> tuple[int, bytes]:
    """The status and the body that a request is answered with."""
    async with asyncio.timeout(timeout_s):
        connection = await pool.connect()
        whole = _Whole(asyncio.get_running_loop().create_future())
        try:
            connection.send([request], whole)
            body = await whole.done
        except asyncio.CancelledError:
            connection.abort()
            raise
    return whole.status, body


def _elsewhere(request: bytes, page: bytes) -> bytes:
    """The request for the list of models as one for a page at the server's root."""
    method, path, rest = request.split(b" ", 2)
    return b" ".join([method, path.removesuffix(b"/models").removesuffix(b"/v1") + page, rest])


def both(one: Preflight, other: Preflight) -> Preflight:
    """What two servers said, as one: models that both serve, the first warning, the shorter context."""
    models = one.models
    if models is not None and other.models is not None:
        models = [name for name in models if name in other.models]
    lengths = [each.max_model_len for each in (one, other) if each.max_model_len is not None]
    first = one if one.warning else other
    return Preflight(models, first.warning, min(lengths, default=None), first.hint)


def _judge(status: int, body: bytes, url: str, wanted: list[str]) -> tuple[Preflight, list[Model]]:
    """What a server said, and of the models that it lists those that are wanted."""
    if status in (401, 403):
        raise BackendError(
            "http_status",
            f"{url} refuses access (status {status})",
            status=status,
            hint="set the API key in the environment",
        )
    if status != 200:
        said = _said(status, body)
        hint = "try https://" if "https" in said.lower() and url.startswith("http://") else _NOT_OPENAI
        return Preflight(None, f"{url}/models answers with status {status}{said}", hint=hint), []
    try:
        listing = msgspec.json.decode(body, type=Models).data
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BackendError(
            "malformed",
            f"{url}/models does not answer as an OpenAI-compatible server does",
            status=status,
            hint=_NOT_OPENAI,
        ) from None
    models = [entry.id for entry in listing]
    asked = [name or (models[0] if len(models) == 1 else "") for name in wanted]
    found = Preflight(models)
    missing = next((name for name in asked if name and name not in models), None)
    if missing is not None:
        listed = ", ".join(models[:8]) or "none"
        found.warning = f"the server does not list the model {missing!r} (it lists: {listed})"
    return found, [entry for entry in listing if entry.id in asked]


def _said(status: int, body: bytes) -> str:
    """The server's own words to a refusal, on one line; a web page's are none."""
    if body.lstrip()[:1] == b"<" and b"HTTPS port" not in body:
        return ""
    said = " ".join(refused(status, body).what.partition(": ")[2].split())
    said = "".join(letter if letter.isprintable() else "\ufffd" for letter in said)
    return f": {said[:_LONGEST_SAID]}" if said else ""


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
