"""Imitations of real servers, in what they answer to a client that asks what they can: one engine's quirks each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from aiohttp import web

NATURAL = 5
"""Tokens of an answer that ends of itself."""


@dataclass(frozen=True)
class Quirks:
    """What a server does in its own way. `None` for what it does not have."""

    owned_by: str = "somebody"
    model: str = "tiny"
    apis: tuple[str, ...] = ("chat", "completions")
    context: int = 2048
    context_in: Literal["models", "props"] | None = "models"
    models_status: int = 200
    health: bool = True
    metrics: str | None = None
    """What names of metrics begin with."""
    running: str = "running"
    generated: str = "generated_total"
    tokenize: bool = False
    reset: str | None = None
    slots: bool = False
    """llama.cpp's /slots; it also answers any OPTIONS with 200."""
    stream: bool = True
    usage: Literal["empty", "finish", "every"] | None = "empty"
    first_content: str | None = ""
    done: bool = True
    tokens_per_chunk: int = 1
    silent_every: int = 0
    """Every so many tokens one is an EOS without text, when it is ignored."""
    keep_alive: bool = True
    hangs_up: bool = False
    """The connection is closed behind a stream, though the headers said that it would be kept (llama.cpp)."""
    ignore_eos: Literal["obeyed", "ignored", "refused"] = "obeyed"
    min_tokens: Literal["obeyed", "ignored", "refused"] = "obeyed"
    unknown_field: Literal["ignored", "refused"] = "ignored"
    new_limit: bool = False
    """max_tokens is refused in favour of max_completion_tokens."""
    token_ids: Literal["told", "ignored", "refused"] = "ignored"
    word_tokens: int = 1
    overhead: int = 8
    block: int = 1
    cached: Literal["told", "timings", "zero"] | None = "told"
    tools: Literal["told", "left out", "none only"] = "told"
    tool_role: bool = True
    wrong_model: int = 404
    too_long: Literal["status", "stream", "dies", "hangs"] = "status"
    stops: bool = True
    reasoning: str | None = None
    error_key: bool = True
    """Errors stand under `error`; without, they are {"message", "type", "code"}."""
    hangs: tuple[str, ...] = ()
    """Paths that never answer."""
    key: str | None = None
    """An API key that must be given, Anthropic's way for messages."""


VLLM = Quirks(
    owned_by="vllm", metrics="vllm:", running="num_requests_running", generated="generation_tokens_total",
    tokenize=True, reset="/reset_prefix_cache", silent_every=40, token_ids="told", block=32, tools="none only",
)  # fmt: skip
VLLM_PLAIN = Quirks(owned_by="vllm", metrics="vllm:", running="num_requests_running", cached=None)
LLAMA_CPP = Quirks(
    owned_by="llamacpp", apis=("chat", "completions", "responses", "messages"), context_in="props", metrics="llamacpp:",
    running="requests_processing", generated="tokens_predicted_total", tokenize=True, slots=True, first_content=None,
    min_tokens="ignored", tools="left out", wrong_model=200, hangs_up=True,
)  # fmt: skip
SGLANG = Quirks(
    owned_by="sglang", metrics="sglang:", running="num_running_reqs", generated="generation_tokens_total",
    reset="/flush_cache", token_ids="refused", wrong_model=200, cached=None, error_key=False,
    reasoning="hm, let me see",
)  # fmt: skip
DYNAMO = Quirks(
    owned_by="nvidia", metrics="dynamo_", running="frontend_inflight_requests", block=16, too_long="stream",
    error_key=False, usage="every",
)  # fmt: skip
TRANSFORMERS = Quirks(
    models_status=500, context_in=None, done=False, usage="finish", ignore_eos="refused", min_tokens="refused",
    unknown_field="refused", cached=None, health=False,
)  # fmt: skip
ANTHROPIC = Quirks(
    owned_by="", model="claude", apis=("messages",), context_in=None, health=False, unknown_field="refused",
    tool_role=False, key="sk-secret",
)  # fmt: skip

_KNOWN = {
    *("model", "messages", "prompt", "input", "stream", "stream_options", "max_tokens", "max_completion_tokens"),
    *("max_output_tokens", "ignore_eos", "min_tokens", "return_token_ids", "tools", "tool_choice"),
}
_PATHS = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "responses": "/responses",
    "messages": "/messages",
}


class Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


class Imitation:
    """A server with quirks. `asked` counts its requests by path, `bodies` are what the APIs were sent."""

    def __init__(self, quirks: Quirks) -> None:
        self.quirks = quirks
        self.url = ""
        self.running = 0
        self.generated = 0
        self.hits = 0
        self.dead = False
        self.bodies: list[dict[str, Any]] = []
        self.resets = 0
        self._seen: list[list[str]] = []
        self._going: set[asyncio.Task[None]] = set()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._faults])
        quirks = self.quirks
        for api in quirks.apis:
            app.router.add_post("/v1" + _PATHS[api], partial(self._call, api=api))
        app.router.add_get("/v1/models", self._models)
        if quirks.health:
            app.router.add_get("/health", self._health)
        if quirks.metrics is not None:
            app.router.add_get("/metrics", self._metrics)
        if quirks.tokenize:
            app.router.add_post("/tokenize", self._tokenize)
        if quirks.context_in == "props":
            app.router.add_get("/props", self._props)
        if quirks.reset is not None:
            app.router.add_post(quirks.reset, self._reset)
        if quirks.slots:
            app.router.add_post("/slots/0", self._slots)
            app.router.add_route("OPTIONS", "/{path:.*}", self._options)
        return app

    @web.middleware
    async def _faults(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            if self.dead:
                raise Refusal(503, "the worker is gone")
            if request.path in self.quirks.hangs:
                await asyncio.sleep(60)
            response: web.StreamResponse = await handler(request)
        except Refusal as fault:
            response = self._error(fault.status, fault.message)
        if not self.quirks.keep_alive:
            response.force_close()
        return response

    def _error(self, status: int, message: str) -> web.Response:
        inner = {"message": message, "type": "bad", "code": status}
        return _json({"error": inner} if self.quirks.error_key else {"object": "error", **inner}, status)

    # --- pages

    async def _health(self, request: web.Request) -> web.Response:
        return _json({})

    async def _slots(self, request: web.Request) -> web.Response:
        raise Refusal(501, "start it with --slot-save-path")

    async def _options(self, request: web.Request) -> web.Response:
        return _json({})

    async def _models(self, request: web.Request) -> web.Response:
        if self.quirks.models_status != 200:
            raise Refusal(self.quirks.models_status, "it broke")
        entry: dict[str, Any] = {"id": self.quirks.model, "object": "model", "owned_by": self.quirks.owned_by}
        if self.quirks.context_in == "models":
            entry["max_model_len"] = self.quirks.context
        return _json({"object": "list", "data": [entry]})

    async def _props(self, request: web.Request) -> web.Response:
        return _json({"default_generation_settings": {"n_ctx": self.quirks.context}})

    async def _metrics(self, request: web.Request) -> web.Response:
        start = self.quirks.metrics
        rows = [(self.quirks.running, self.running), (self.quirks.generated, self.generated)]
        rows.append(("prefix_cache_hits_total", self.hits))
        return web.Response(text="".join(f'{start}{name}{{model_name="tiny"}} {value}\n' for name, value in rows))

    async def _tokenize(self, request: web.Request) -> web.Response:
        words = (await request.json())["prompt"].split()
        return _json({"tokens": [1] * len(words) * self.quirks.word_tokens})

    async def _reset(self, request: web.Request) -> web.Response:
        self.resets += 1
        return _json({})

    # --- calls

    async def _call(self, request: web.Request, api: str) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        prompt = self._prompt(body, api)
        self._refuse(request, body, prompt)
        limit = next((body[n] for n in ("max_tokens", "max_completion_tokens", "max_output_tokens") if n in body), 16)
        count = min(limit, self._natural(body, limit))
        if len(prompt) + limit > self.quirks.context:
            if self.quirks.too_long == "hangs":
                await asyncio.sleep(60)
            self.dead = self.quirks.too_long == "dies"
        cached = self._cached(prompt)
        usage = self._usage(api, len(prompt), count, cached)
        if not self.quirks.stream:
            said = {"message": {"role": "assistant", "content": "w " * count}, "finish_reason": "stop"}
            return _json({"choices": [said], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        if not self.quirks.keep_alive:
            response.force_close()
        await response.prepare(request)
        if len(prompt) + limit > self.quirks.context:
            await _send(response, {"error": {"message": "the context is too short for it", "code": 400}})
            if self.quirks.done:
                await response.write(b"data: [DONE]\n\n")
            return response
        talk = asyncio.create_task(self._talk(response, api, body, count, limit, usage))
        self._going.add(talk)
        talk.add_done_callback(self._going.discard)
        try:
            await asyncio.shield(talk)
            if self.quirks.hangs_up and request.transport is not None:
                await response.write_eof()
                request.transport.close()
        except asyncio.CancelledError:
            if self.quirks.stops:
                talk.cancel()
            raise
        return response

    def _refuse(self, request: web.Request, body: dict[str, Any], prompt: list[str]) -> None:
        quirks = self.quirks
        if quirks.key is not None and request.headers.get("x-api-key") != quirks.key:
            raise Refusal(401, "x-api-key is missing")
        odd = [name for name in body if name not in _KNOWN]
        for name, how in (("ignore_eos", quirks.ignore_eos), ("min_tokens", quirks.min_tokens)):
            if how == "refused" and name in body:
                odd.append(name)
        if odd and quirks.unknown_field == "refused":
            raise Refusal(422, f"{odd[0]}: Extra inputs are not permitted")
        if quirks.new_limit and "max_tokens" in body:
            raise Refusal(400, "max_tokens is not supported: use max_completion_tokens")
        if body.get("model") != quirks.model and quirks.wrong_model != 200:
            raise Refusal(quirks.wrong_model, f"the model {body.get('model')!r} does not exist")
        if quirks.token_ids == "refused" and "return_token_ids" in body:
            raise Refusal(400, "return_token_ids is not supported in a stream")
        if quirks.tools == "none only" and "tools" in body and body.get("tool_choice") != "none":
            raise Refusal(400, "auto tool choice needs --enable-auto-tool-choice")
        if not quirks.tool_role and any(m["role"] == "tool" for m in body.get("messages", [])):
            raise Refusal(400, "messages: unexpected role tool")
        if len(prompt) > quirks.context and quirks.too_long == "status":
            raise Refusal(400, f"a prompt of {len(prompt)} tokens is longer than {quirks.context}")

    def _prompt(self, body: dict[str, Any], api: str) -> list[str]:
        """The tokens of a prompt."""
        if api == "completions":
            ids = body["prompt"]
            return [f"#{n}" for n in ids] if isinstance(ids, list) else ids.split() * self.quirks.word_tokens
        messages = [{"content": body["input"]}] if api == "responses" else body["messages"]
        words = [f"<{n}>" for n in range(self.quirks.overhead)]
        if self.quirks.tools != "left out" and "tools" in body:
            words += json.dumps(body["tools"]).split()
        for message in messages:
            words += (message["content"] or "").split() * self.quirks.word_tokens
        return words

    def _natural(self, body: dict[str, Any], limit: int) -> int:
        if self.quirks.ignore_eos == "obeyed" and body.get("ignore_eos"):
            return limit
        return max(NATURAL, body.get("min_tokens", 0) if self.quirks.min_tokens == "obeyed" else 0)

    def _cached(self, prompt: list[str]) -> int:
        most = 0
        for other in self._seen:
            same = next((i for i, (a, b) in enumerate(zip(prompt, other, strict=False)) if a != b), len(prompt))
            most = max(most, min(same, len(other), len(prompt) - 1))
        self._seen.append(prompt)
        cached = most // self.quirks.block * self.quirks.block
        self.hits += cached
        return cached

    def _usage(self, api: str, prompt: int, output: int, cached: int) -> dict[str, Any]:
        if api in ("responses", "messages"):
            usage: dict[str, Any] = {"input_tokens": prompt, "output_tokens": output}
            if api == "messages":
                return usage | {"input_tokens": prompt - cached, "cache_read_input_tokens": cached}
            return usage | {"input_tokens_details": {"cached_tokens": cached}}
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "prompt_tokens_details": None}
        if self.quirks.cached in ("told", "zero"):
            usage["prompt_tokens_details"] = {"cached_tokens": cached if self.quirks.cached == "told" else 0}
        return usage

    async def _talk(
        self, out: web.StreamResponse, api: str, body: dict[str, Any], count: int, limit: int, usage: dict[str, Any]
    ) -> None:
        self.running += 1
        try:
            await self._open(out, api, usage)
            for at in range(0, count, self.quirks.tokens_per_chunk):
                try:
                    await self._word(out, api, body, at, usage)
                except ConnectionError:
                    if self.quirks.stops:
                        return
                self.generated += self.quirks.tokens_per_chunk
                await asyncio.sleep(0.002 if count > 200 else 0)
            await self._close(out, api, "length" if count == limit else "stop", usage, body)
        finally:
            self.running -= 1

    async def _open(self, out: web.StreamResponse, api: str, usage: dict[str, Any]) -> None:
        if api == "chat":
            await self._chunk(out, {"delta": {"role": "assistant", "content": self.quirks.first_content}})
            if self.quirks.reasoning is not None:
                await self._chunk(out, {"delta": {"reasoning_content": self.quirks.reasoning}})
        elif api == "messages":
            await _send(out, {"type": "message_start", "message": {"role": "assistant", "usage": usage}})
        elif api == "responses":
            await _send(out, {"type": "response.created", "response": {"status": "in_progress", "error": None}})

    async def _word(
        self, out: web.StreamResponse, api: str, body: dict[str, Any], at: int, usage: dict[str, Any]
    ) -> None:
        every = self.quirks.silent_every
        text = "" if every and body.get("ignore_eos") and at % every == every - 1 else f" w{at}"
        more: dict[str, Any] = {}
        if self.quirks.token_ids == "told" and body.get("return_token_ids"):
            more["token_ids"] = [at]
        if api == "chat":
            await self._chunk(
                out, {"delta": {"content": text}, **more}, usage if self.quirks.usage == "every" else None
            )
        elif api == "completions":
            await self._chunk(out, {"text": text, **more})
        elif api == "responses":
            await _send(out, {"type": "response.output_text.delta", "delta": text})
        else:
            await _send(out, {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}})

    async def _close(
        self, out: web.StreamResponse, api: str, finish: str, usage: dict[str, Any], body: dict[str, Any]
    ) -> None:
        if api == "responses":
            done = {"status": "completed", "usage": usage, "error": None}
            await _send(out, {"type": "response.completed", "response": done})
        elif api == "messages":
            end = {"stop_reason": {"stop": "end_turn", "length": "max_tokens"}[finish]}
            await _send(
                out, {"type": "message_delta", "delta": end, "usage": {"output_tokens": usage["output_tokens"]}}
            )
            await _send(out, {"type": "message_stop"})
        else:
            wanted = self.quirks.usage is not None and body.get("stream_options", {}).get("include_usage")
            at_end = wanted and self.quirks.usage == "finish"
            last: dict[str, Any] = {"delta": {}} if api == "chat" else {"text": ""}
            await self._chunk(out, {**last, "finish_reason": finish}, usage if at_end else None)
            if wanted and not at_end:
                timings = {"cache_n": usage["prompt_tokens"] - 1} if self.quirks.cached == "timings" else None
                await _send(out, {"choices": [], "usage": usage, "timings": timings})
            if self.quirks.done:
                await out.write(b"data: [DONE]\n\n")

    async def _chunk(self, out: web.StreamResponse, choice: dict[str, Any], usage: Any = None) -> None:
        await _send(out, {"choices": [{"index": 0, "finish_reason": None, **choice}], "usage": usage})


async def _send(out: web.StreamResponse, event: dict[str, Any]) -> None:
    name = f"event: {event['type']}\n" if "type" in event else ""
    await out.write(f"{name}data: {json.dumps(event)}\n\n".encode())


def _json(value: Any, status: int = 200) -> web.Response:
    return web.json_response(value, status=status)


@asynccontextmanager
async def imitating(quirks: Quirks) -> AsyncIterator[Imitation]:
    """A server with these quirks on a free port of the loopback."""
    imitation = Imitation(quirks)
    runner = web.AppRunner(imitation.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        imitation.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield imitation
    finally:
        for task in list(imitation._going):
            task.cancel()
        await runner.cleanup()
