"""Routes, start and end of the server."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from aiohttp import web

from workloom import clock
from workloom.clock import RealClock
from workloom.engine.cluster import serving
from workloom.engine.fleet import Fleet, Pool
from workloom.engine.hints import Hints
from workloom.engine.profile import Profile
from workloom.errors import Refused, UsageError
from workloom.serve import asking
from workloom.serve.asking import Ask, BadRequest
from workloom.serve.metrics import CONTENT_TYPE, Books, Page
from workloom.serve.pump import Call, Pump
from workloom.serve.record import Head, Recorder
from workloom.serve.texts import MAX_BYTES, Texts
from workloom.serve.wire import Form, Stream

MAX_BODY_BYTES = 1 << 30
SESSION_HEADERS = ("x-session-id", "x-session-affinity", "x-correlation-id")
"""Where a session's key is looked for, in this order: routers with session affinity go by it."""
_json = msgspec.json.encode


class Server:
    """A server that listens. Use :func:`serve` to make one."""

    def __init__(self, fleet: Fleet, model: str | None, prefix_cache: bool, text_bytes: int) -> None:
        self.fleet = fleet
        self.model = model or fleet.usual_model or fleet.pools[0].profile.model
        self.any_model = model is None and not fleet.models
        self._prefix_cache = prefix_cache
        self.clock = RealClock()
        self.texts = Texts(text_bytes)
        self.port = 0
        self.url = ""
        """Up to and with ``/v1``."""
        engine = serving(fleet, prefix_cache=prefix_cache)
        self.pump = Pump(engine, self.clock)
        books = Books()
        self.pump.ledgers.append(books)
        self._page = Page(self.pump, engine, books, self.model)
        self._recorder: Recorder | None = None
        self._served = 0
        self._runner = web.AppRunner(
            self._app(),
            handle_signals=False,
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=0.1,
        )

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_faults])
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completion)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/reset_prefix_cache", self._reset)
        return app

    async def start(self, host_name: str, port: int, record: Path | None) -> None:
        """Begin to listen; port 0 takes a free one. Raises UsageError, and leaves nothing behind then."""
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, host_name, port, backlog=1024)
            await site.start()
            if record is not None:
                several = None if self.fleet.alone else self.fleet
                head = Head(1, self.fleet.pools[0].profile, self._prefix_cache, self.clock.origin, several)
                self._recorder = Recorder(record, head)
                self.pump.ledgers.append(self._recorder)
        except OSError as fault:
            await self.close()
            raise _cannot_listen(fault, host_name, port) from fault
        except UsageError:
            await self.close()
            raise
        self.port = int(self._runner.addresses[0][1])
        shown = f"[{host_name}]" if ":" in host_name else host_name
        self.url = f"http://{shown}:{self.port}/v1"

    async def close(self) -> None:
        """Stop listening, abort what is in flight, end the record. Raises UsageError if that could not be kept."""
        await self._runner.cleanup()
        self.pump.close()
        if self._recorder is not None:
            self._recorder.close()

    # -- what is asked

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        at_ns = self.pump.stamp()
        return await self._answer(request, at_ns, asking.chat(body), chat=True)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        at_ns = self.pump.stamp()
        return await self._answer(request, at_ns, asking.completion(body), chat=False)

    async def _answer(self, request: web.Request, at_ns: int, ask: Ask, chat: bool) -> web.StreamResponse:
        session = next((v for name in SESSION_HEADERS if (v := request.headers.get(name))), "")
        call, form = self._submit(at_ns, ask, chat, session)
        try:
            if ask.stream:
                return await self._stream(request, call, form, ask.usage_at_end)
            finished = await call.done
            return web.Response(body=form.whole(finished), content_type="application/json")
        except (asyncio.CancelledError, ConnectionError):
            self.pump.cancel(call)
            raise

    @property
    def models(self) -> list[str]:
        """The names it answers to."""
        return self.fleet.models or [self.model]

    def _profile(self, model: str) -> Profile:
        """Of a model, the profile with the longest context."""
        found = [self.fleet.pools[number].profile for number in self.fleet.of(model)]
        return max(found, key=lambda profile: profile.max_model_len)

    def _submit(self, at_ns: int, ask: Ask, chat: bool, session: str) -> tuple[Call, Form]:
        """Into the engine, without a pause since the stamp. Raises BadRequest."""
        if ask.model is not None and ask.model not in self.models and not self.any_model:
            raise BadRequest(
                f"The model `{ask.model}` does not exist; this is {', '.join(self.models)}.", status=404, param="model"
            )
        hints = Hints(model=(ask.model or self.model) if self.fleet.models else "", session=session)
        place = self.texts.prompt(ask.text)
        prompt_tokens = place.key.tokens
        room = self._profile(hints.model).max_model_len - prompt_tokens
        output_tokens = ask.max_tokens if ask.max_tokens is not None else max(1, min(ask.default_tokens, room))
        if output_tokens > room:  # before as many words are made
            raise BadRequest(
                f"This model's maximum context length is {room + prompt_tokens} tokens, but {prompt_tokens} in the "
                f"prompt and {output_tokens} in the answer were asked for."
            )
        answer = self.texts.answer(place, output_tokens)
        self._served += 1
        name = f"{'chatcmpl' if chat else 'cmpl'}-{self._served}"
        try:
            call = self.pump.submit(name, at_ns, place.key, answer.number, output_tokens, hints)
        except Refused as refused:
            said = [
                refused.what,
                *(f"{n} {v}" for n in ("expected", "found") if (v := getattr(refused, n)) is not None),
            ]
            raise BadRequest(", ".join(said)) from refused
        return call, Form(chat, name, hints.model or self.model, int(clock.host.wall()), answer.words, prompt_tokens)

    async def _stream(self, request: web.Request, call: Call, form: Form, usage: bool) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(form.opening())
        stream = Stream(request, response, form, usage)
        self.pump.listen(call, stream)
        await call.done
        await response.write_eof(stream.rest)
        return response

    # -- about the server

    async def _models(self, request: web.Request) -> web.Response:
        entries = []
        for name in self.models:
            profile = self._profile(name if self.fleet.models else "")
            entries.append(
                {
                    "id": name,
                    "object": "model",
                    "created": int(clock.host.wall()),
                    "owned_by": "workloom",
                    "root": profile.model,
                    "max_model_len": profile.max_model_len,
                }
            )
        return _json_response({"object": "list", "data": entries})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._page.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _reset(self, request: web.Request) -> web.Response:
        """As vLLM's: 200, and whether all of it is empty now."""
        if self._recorder is not None:
            raise BadRequest("A record is being kept: what was served could not be replayed from it.", status=409)
        return _json_response({"success": self.pump.reset_prefix_cache()})


async def serve(
    fleet: Profile | Fleet,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    model: str | None = None,
    prefix_cache: bool = True,
    record: Path | None = None,
    text_bytes: int = MAX_BYTES,
) -> Server:
    """Serve a fleet, or one replica of a profile, until the server is closed. Raises UsageError.

    Under `model` as its name; with none it lists the profile's own model and answers to every name. A fleet whose
    models have names answers to these.
    `record` is a new file for what is served; `text_bytes` bounds the memory of prompts and answers.
    """
    if not 0 <= port <= 65_535:
        raise UsageError("a port is a number from 0 to 65535", where="--port", found=port, hint="0 takes a free one")
    if isinstance(fleet, Profile):
        fleet = Fleet((Pool(fleet),))
    if model is not None and fleet.models:
        raise UsageError(
            "the models of this fleet have names", where="--model", expected=", ".join(fleet.models), found=model
        )
    server = Server(fleet, model, prefix_cache, text_bytes)
    await server.start(host, port, record)
    return server


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _faults(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal in the API's own form."""
    try:
        return await handler(request)
    except BadRequest as fault:
        return _error(fault.status, fault.what, fault.param)
    except web.HTTPException as fault:
        if fault.status < 400:
            raise
        return _error(fault.status, f"{request.method} {request.path}: {fault.reason}", None)


def _error(status: int, message: str, param: str | None) -> web.Response:
    kind = {404: "NotFoundError", 405: "MethodNotAllowedError"}.get(status, "BadRequestError")
    error = {"message": message, "type": kind, "param": param, "code": status}
    return _json_response({"error": error}, status)


def _json_response(body: object, status: int = 200) -> web.Response:
    return web.Response(body=_json(body), status=status, content_type="application/json")


def _cannot_listen(fault: OSError, host_name: str, port: int) -> UsageError:
    if fault.errno == errno.EADDRINUSE:
        hint = "choose another port, 0 for a free one"
        return UsageError("the port is in use", where=f"{host_name}:{port}", hint=hint)
    return UsageError("the server cannot listen there", where=f"{host_name}:{port}", found=fault.strerror or fault)
