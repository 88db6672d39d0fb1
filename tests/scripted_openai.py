"""A well-behaved server of all four APIs, with knobs, that keeps what it was asked: bodies, headers, order.

    with Scripted(Knobs(template=3)) as server:
        ... server.url ...
        server.asked

One word is one token, and every message costs `template` more. Its answers say which request they answer, word by word
(`r4w0 r4w1 ...`, thoughts `r4t0`), so a test can see them again in later prompts. It has a prefix cache of words for
each model. It runs on a thread with a loop of its own, on 127.0.0.1 only.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

PATHS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
}
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def words(text: str) -> int:
    return len(text.split())


@dataclass(frozen=True)
class Knobs:
    """How the server is. Times in seconds."""

    models: tuple[str, ...] = ("m",)
    context: int | None = None
    props: int | None = None
    """The context of a slot, as llama.cpp tells it."""
    template: int = 0
    """Tokens that every message costs besides its words."""
    reasoning: int = 0
    """Tokens of an answer that are thoughts, where it has more than that."""
    tool_calls: bool = False
    """Every answer ends with a tool call."""
    natural: int = 5
    """Tokens of an answer that may end by itself."""
    first_s: float = 0.0
    """Before an answer's first byte."""
    gap_s: float = 0.0
    """Before every token of an answer."""
    refusals: tuple[tuple[int, str], ...] = ()
    """Status and further header lines of the first requests, one each."""
    fails: Callable[[int], bool] = lambda number: False
    """Which requests, by their number, are answered with a status of 500."""
    metrics: bool = False
    resets: bool = False
    count: Callable[[str], int] = words


@dataclass
class Asked:
    """One request as it came, and what was counted."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    prompt: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0

    @property
    def api(self) -> str:
        return PATHS.get(self.path, "")

    @property
    def messages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.body["messages"]
        return found

    @property
    def said(self) -> str:
        """All of the prompt's text."""
        return " ".join(self.prompt)


class Scripted:
    """See the module. `asked` has the calls in the order they came, `pages` the paths of everything else."""

    def __init__(self, knobs: Knobs | None = None) -> None:
        self.knobs = knobs or Knobs()
        self.asked: list[Asked] = []
        self.pages: list[str] = []
        self.seen_headers: list[dict[str, str]] = []
        self.port = 0
        self.live = 0
        self.most_live = 0
        self._cache: dict[str, list[list[str]]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted server", daemon=True)
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Scripted:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=1 << 24, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _stop(self) -> None:
        self._server.close()
        for talk in list(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await self._request(reader, writer)
        except asyncio.CancelledError:
            pass  # the server closes
        finally:
            self._talks.discard(task)
            writer.close()

    # --- requests

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        data = await reader.readexactly(int(headers.get("content-length", "0")))
        self.seen_headers.append(headers)
        if path not in PATHS:
            self.pages.append(f"{method} {path}")
            await self._page(writer, path.partition("?")[0])
            return
        asked = Asked(len(self.asked), path, headers, json.loads(data))
        self.asked.append(asked)
        self.live += 1
        self.most_live = max(self.live, self.most_live)
        try:
            await self._answer(writer, asked)
        finally:
            self.live -= 1

    async def _page(self, writer: asyncio.StreamWriter, path: str) -> None:
        if path == "/v1/models":
            more = {} if self.knobs.context is None else {"max_model_len": self.knobs.context}
            listed = [{"id": name, "object": "model", **more} for name in self.knobs.models]
            await _whole(writer, "200 OK", json.dumps({"object": "list", "data": listed}))
        elif path == "/props" and self.knobs.props is not None:
            told = {"default_generation_settings": {"n_ctx": self.knobs.props}}
            await _whole(writer, "200 OK", json.dumps(told))
        elif path == "/metrics" and self.knobs.metrics:
            tokens = sum(asked.prompt_tokens for asked in self.asked)
            hits = sum(asked.cached_tokens for asked in self.asked)
            rows = [("num_requests_running", self.live), ("prompt_tokens_total", tokens)]
            rows += [("prefix_cache_queries_total", tokens), ("prefix_cache_hits_total", hits)]
            await _whole(writer, "200 OK", "".join(f'vllm:{name}{{model_name="m"}} {n}\n' for name, n in rows))
        elif path == "/reset_prefix_cache" and self.knobs.resets:
            self._cache.clear()
            await _whole(writer, "200 OK", "")
        else:
            await _whole(writer, "404 Not Found", '{"error":{"message":"there is nothing here"}}')

    async def _answer(self, writer: asyncio.StreamWriter, asked: Asked) -> None:
        knobs, body = self.knobs, asked.body
        if asked.number < len(knobs.refusals):
            status, more = knobs.refusals[asked.number]
            message = f"not with {asked.headers.get('authorization', 'no key')}"  # as some do
            await _whole(writer, f"{status} No", json.dumps({"error": {"message": message}}), more)
            return
        if knobs.fails(asked.number):
            await _whole(writer, "500 Internal Server Error", '{"error":{"message":"out of luck"}}')
            return
        self._count(asked)
        limit = next((body[name] for name in LIMITS if name in body), None)
        exact = body.get("ignore_eos") and limit is not None
        count = limit if exact else knobs.natural if limit is None else min(limit, knobs.natural)
        assert count is not None
        if knobs.context is not None and asked.prompt_tokens + count > knobs.context:
            message = f"This model's maximum context length is {knobs.context} tokens"
            error = {"message": message, "code": "context_length_exceeded"}
            await _whole(writer, "400 Bad Request", json.dumps({"error": error}))
            return
        await asyncio.sleep(knobs.first_s)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        finish = "length" if count == limit else "stop"
        for event in _EVENTS[asked.api](knobs, asked, count, finish):
            if "\n" not in event and knobs.gap_s:
                await asyncio.sleep(knobs.gap_s)
            data = f"data: {event}\n\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _count(self, asked: Asked) -> None:
        """Words, tokens and what of them is in the cache of its model."""
        body, knobs = asked.body, self.knobs
        if asked.api == "completions" and isinstance(body["prompt"], list):
            asked.prompt = [f"#{number}" for number in body["prompt"]]
            asked.prompt_tokens = len(asked.prompt)
        else:
            texts = list(prompt_texts(body))
            asked.prompt = " ".join(texts).split()
            asked.prompt_tokens = sum(knobs.count(text) + knobs.template for text in texts)
        cache = self._cache.setdefault(body["model"], [])
        same = [sum(1 for _ in takewhile(lambda ab: ab[0] == ab[1], zip(asked.prompt, old))) for old in cache]  # noqa: B905
        asked.cached_tokens = min(max(same, default=0), max(0, len(asked.prompt) - 1))
        cache.append(asked.prompt)


def prompt_texts(body: dict[str, Any]) -> list[str]:
    """What a body says, in the order a template puts it: tools, system, messages; one text for each message."""
    texts = [tool.get("function", tool)["description"] for tool in body.get("tools", [])]
    if isinstance(body.get("system"), str):
        texts.append(body["system"])
    if "prompt" in body:
        texts.append(body["prompt"])
    for message in [*body.get("messages", []), *body.get("input", [])]:
        content = message.get("content", message.get("output"))
        if isinstance(content, list):
            content = " ".join(block.get("text") or block.get("content") or "" for block in content)
        texts.append(content or "")
    return texts


async def _whole(writer: asyncio.StreamWriter, status: str, body: str, more: str = "") -> None:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Length: {len(body.encode())}\r\n{more + chr(13) + chr(10) if more else ''}\r\n"
    )
    writer.write(head.encode() + body.encode())
    await writer.drain()


# --- answers: the events of each API, as JSON


def _tokens(knobs: Knobs, asked: Asked, count: int) -> list[tuple[bool, str]]:
    """Each token of an answer: whether it is a thought, and its word."""
    thoughts = knobs.reasoning if count > knobs.reasoning else 0
    said = [(True, f"r{asked.number}t{i}") for i in range(thoughts)]
    said += [(False, f"r{asked.number}w{i}") for i in range(count - thoughts)]
    return [(thought, word if i in (0, thoughts) else f" {word}") for i, (thought, word) in enumerate(said)]


def _usage(knobs: Knobs, asked: Asked, count: int) -> dict[str, Any]:
    thoughts = knobs.reasoning if count > knobs.reasoning else 0
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": count,
        "prompt_tokens_details": {"cached_tokens": asked.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": thoughts},
    }


def _openai(knobs: Knobs, asked: Asked, count: int, finish: str) -> list[str]:
    chat = asked.api == "chat"

    def choice(said: dict[str, Any], finish: str | None = None) -> str:
        what = {"delta": said} if chat else {"text": said.get("content", "")}
        return json.dumps({"choices": [{"index": 0, **what, "finish_reason": finish}]})

    events = [choice({"role": "assistant", "content": ""})] if chat else []
    for thought, word in _tokens(knobs, asked, count):
        events.append(choice({"reasoning_content" if thought and chat else "content": word}))
    if knobs.tool_calls and chat:
        events.append(choice({"tool_calls": [{"index": 0, "function": {"name": "t0", "arguments": "{}"}}]}))
    events.append(choice({}, finish))
    if asked.body.get("stream_options", {}).get("include_usage"):
        events.append(json.dumps({"choices": [], "usage": _usage(knobs, asked, count)}))
    return [*events, "[DONE]"]


def _responses(knobs: Knobs, asked: Asked, count: int, finish: str) -> list[str]:
    events = [json.dumps({"type": "response.created", "response": {"status": "in_progress"}})]
    for thought, word in _tokens(knobs, asked, count):
        kind = "response.reasoning_text.delta" if thought else "response.output_text.delta"
        events.append(json.dumps({"type": kind, "delta": word}))
    usage = {"input_tokens": asked.prompt_tokens, "output_tokens": count}
    usage["input_tokens_details"] = {"cached_tokens": asked.cached_tokens}  # type: ignore[assignment]
    done = {"status": "completed", "usage": usage}
    return [*events, json.dumps({"type": "response.completed", "response": done})]


def _messages(knobs: Knobs, asked: Asked, count: int, finish: str) -> list[str]:
    usage = {"input_tokens": asked.prompt_tokens - asked.cached_tokens, "output_tokens": 1}
    usage["cache_read_input_tokens"] = asked.cached_tokens
    events = [json.dumps({"type": "message_start", "message": {"role": "assistant", "usage": usage}})]
    for thought, word in _tokens(knobs, asked, count):
        delta = {"type": "thinking_delta", "thinking": word} if thought else {"type": "text_delta", "text": word}
        events.append(json.dumps({"type": "content_block_delta", "index": 0, "delta": delta}))
    end = {"stop_reason": "max_tokens" if finish == "length" else "end_turn"}
    events.append(json.dumps({"type": "message_delta", "delta": end, "usage": {"output_tokens": count}}))
    return [*events, json.dumps({"type": "message_stop"})]


_EVENTS: dict[str, Callable[[Knobs, Asked, int, str], list[str]]] = {
    "chat": _openai,
    "completions": _openai,
    "responses": _responses,
    "messages": _messages,
}
