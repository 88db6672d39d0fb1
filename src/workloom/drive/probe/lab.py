"""What the probes share: the server, how it is asked, and what earlier probes found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from workloom.drive.probe import answer
from workloom.drive.probe.answer import Answer
from workloom.drive.probe.wire import Reply, Wire
from workloom.drive.text import Texts

Api = Literal["chat", "completions", "responses", "messages"]

PATHS: dict[Api, str] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "responses": "/responses",
    "messages": "/messages",
}

Message = Mapping[str, Any]


class Known(Struct):
    """What has been found so far."""

    models: list[str] | None = None
    owner: str | None = None
    """Who owns the models, by the list: often the name of the engine."""
    max_model_len: int | None = None
    streams: dict[Api, Answer] = msgspec.field(default_factory=dict)
    """The first answer of each API that streams."""
    primary: Api | None = None
    """The API that the other probes ask."""
    longest: Answer | None = None
    """The longest answer that came so far."""
    family: str | None = None
    """Whose metrics there are."""
    limit_field: str = "max_tokens"
    """How chat completions are asked for at most so many tokens."""
    exact_count: bool = False
    """With ignore_eos and min_tokens the asked number of tokens came."""
    exact_refused: list[str] = msgspec.field(default_factory=list)
    """Fields of exact lengths that are refused."""
    tokens_per_word: float | None = None
    overhead_tokens: int | None = None
    """Tokens of a prompt of one message beyond those of its words."""
    auto_tools: bool = True
    """False: a tools array is only taken with tool_choice none."""
    web_pages: int = 0
    """Answers that were pages of HTML."""
    no_pages: int = 0
    """Answers that were something else, or refused access."""


class Lab:
    """A server on the bench. `base` is the path of its API, `headers` are the header lines of each API, `extra` are
    body fields of every call (None takes one away)."""

    def __init__(
        self, wire: Wire, base: str, model: str, texts: Texts, headers: Mapping[str, bytes], extra: Message
    ) -> None:
        self.wire = wire
        self.base = base
        self.model = model
        self.known = Known()
        self._texts = texts
        self._headers = headers
        self._extra = extra
        self._number = 0

    @property
    def root(self) -> str:
        """Where /metrics and /health are: above /v1."""
        return self.base.removesuffix("/v1")

    def words(self, count: int) -> str:
        """A fresh text of so many common words, unlike any other before it."""
        self._number += 1
        return self._texts.text(self._number, count).decode()

    async def get(self, path: str, timeout_s: float | None = None) -> Reply:
        return self._noted(await self.wire.ask("GET", path, timeout_s=timeout_s))

    async def post(self, path: str, body: Any) -> Reply:
        return self._noted(await self.wire.ask("POST", path, msgspec.json.encode(body)))

    async def say(self, text: str, limit: int, *, api: Api | None = None, **fields: Any) -> Answer:
        """Ask the primary API (or `api`) a text, for at most `limit` tokens."""
        api = api or self._primary
        return await self.ask(api, self.body(api, text, limit, **fields))

    async def ask(self, api: Api, body: Mapping[str, Any], stop_after: int | None = None) -> Answer:
        """Send a body to an API and read the answer."""
        encoded = msgspec.json.encode({name: value for name, value in body.items() if value is not None})
        path, headers = self.base + PATHS[api], self._headers[api]
        reply = await self.wire.ask("POST", path, encoded, headers=headers, stop_after=stop_after)
        return answer.read(self._noted(reply))

    def _noted(self, reply: Reply) -> Reply:
        """The reply, counted as a web page or as none."""
        if reply.status not in (0, 401, 403) and reply.body.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
            self.known.web_pages += 1
        elif reply.status:
            self.known.no_pages += 1
        return reply

    def body(self, api: Api, text: str, limit: int, **fields: Any) -> dict[str, Any]:
        """A streamed request for an answer to one text."""
        body: dict[str, Any] = {"model": self.model, "stream": True}
        if api in ("chat", "completions"):
            body["stream_options"] = {"include_usage": True}
        if api == "completions":
            body["prompt"] = text
        elif api == "responses":
            body["input"] = text
        else:
            body["messages"] = [{"role": "user", "content": text}]
        limits = {"responses": "max_output_tokens", "chat": self.known.limit_field}
        return body | {limits.get(api, "max_tokens"): limit} | dict(self._extra) | fields

    @property
    def _primary(self) -> Api:
        assert self.known.primary is not None, "a probe that asks runs only after one API has answered"
        return self.known.primary
