"""Options of live servers, and the target they make."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from workloom.cli.options import Count, Whole
from workloom.errors import UsageError, nearest

if TYPE_CHECKING:
    from workloom.execute import Live
    from workloom.plan import Plan
    from workloom.plan.scenarios import Preset
    from workloom.session import Session

SERVER = Group("Live server", sort_key=4)
TEXT = Group("Text sent to a live server", sort_key=5)
WATCH = Group("Watching a live run", sort_key=6)

Names = Annotated[list[str], Parameter(negative="")]
Flag = Annotated[bool, Parameter(negative="")]


@Parameter(name="*", group=SERVER)
@dataclass(frozen=True)
class ServerOptions:
    """A server, and how to talk to it."""

    url: Names = field(default_factory=list)
    "Base URL up to and with /v1; given again, sessions are dealt to the servers in turn."
    model: str | None = None
    "Model to ask for (default: the one the server lists, if it lists one)."
    model_for: Names = field(default_factory=list)
    "NAME=MODEL: calls of the agent NAME, or of the trace's model NAME, go to MODEL; may be given again."
    endpoint: Literal["chat", "completions", "responses", "messages"] | None = None
    "Which API: OpenAI chat completions (the default), completions or responses, or Anthropic messages."
    api_key_env: str = "OPENAI_API_KEY"
    "Environment variable that holds the key, if the server wants one."
    header: Names = field(default_factory=list)
    "Extra header, NAME:VALUE; may be given again."
    body: Names = field(default_factory=list)
    "Extra body field, NAME=JSON (null takes a default one away); may be given again."
    session_header: Names = field(default_factory=list)
    "Header that carries the session's key, for routers: X-Session-ID, X-Correlation-ID, X-SMG-Routing-Key, ..."
    output: Literal["exact", "cap", "free"] | None = None
    """exact (the default): ask for exactly the planned tokens (ignore_eos, min_tokens); cap: at most; free: as the \
model likes."""
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    "What chat completions call the limit on output tokens."
    retries: Whole = None
    "Send a call again that failed before its first token, so many times; each is counted (default 0)."
    connect_timeout: float = 10.0
    "Seconds to get a connection in; inf for as long as the system tries."
    first_byte_timeout: float | None = None
    "Seconds to the first byte of an answer (default: none but --timeout)."
    insecure: Flag = False
    "Do not check the server's TLS certificate."
    ca_file: str | None = None
    "File of certificates to check the server's by."
    proxy: str = "env"
    "Proxy to go through: a URL, env (HTTP_PROXY, HTTPS_PROXY, NO_PROXY) or none."
    workers: Count = 1
    "Processes that share the work."

    def given(self) -> list[str]:
        return _given(self)

    @property
    def api_key(self) -> str | None:
        return os.environ.get(self.api_key_env) or None

    def headers(self) -> dict[str, str]:
        pairs = {}
        for text in self.header:
            name, colon, value = text.partition(":")
            if not colon or not name.strip():
                raise UsageError(
                    "a header is NAME:VALUE",
                    where="--header",
                    found="one without a name or a colon",
                    hint="quote it where it holds spaces: --header 'X-Team: a b'",
                )
            pairs[name.strip()] = value.strip()
        return pairs

    def fields(self) -> dict[str, Any]:
        pairs = {}
        for text in self.body:
            name, equals, value = text.partition("=")
            try:
                pairs[name] = json.loads(value)
            except json.JSONDecodeError:
                equals = ""
            if not equals or not name:
                raise UsageError(
                    "a body field is NAME=JSON", where="--body", found=text, hint="strings need quotes: 'user=\"me\"'"
                )
        return pairs

    def models(self) -> dict[str, str]:
        pairs = {}
        for text in self.model_for:
            name, equals, served = text.partition("=")
            if not equals or not name or not served:
                raise UsageError(
                    "a model is given as NAME=MODEL", where="--model-for", found=text, hint="--model-for explore=small"
                )
            pairs[name] = served
        return pairs


@Parameter(name="*", group=TEXT)
@dataclass(frozen=True)
class TextOptions:
    """What the prompts say."""

    text: str = "patterns"
    "patterns (sentence-like, of one-token words), words, corpus:FILE, ids or ids:LOW-HIGH (completions), recorded."
    history: Literal["live", "recorded", "text"] | None = None
    "What prompts repeat of earlier answers: what came (the default); words as many as recorded; the recorded text."
    reasoning: Literal["keep", "drop"] = "keep"
    "What a live history keeps of an answer: its reasoning too, or what it said alone."
    tools: Flag = False
    "Definitions go into the tools array, and tools answer in messages of their own."
    correct: Literal["on", "off"] = "on"
    "Correct the length of prompts, turn by turn, by the server's own counts."
    tokenizer: str | None = None
    "hf:DIR, tiktoken:NAME or mistral:FILE: use words that are one token in it."
    salt: str = "random"
    "What makes this run's text unlike that of others: random (so no earlier run is hit), plan, or a number."

    def given(self) -> list[str]:
        return _given(self)

    def text_salt(self, plan: Plan) -> int:
        from workloom import seeds

        if self.salt == "random":
            return seeds.fresh_seed()
        if self.salt == "plan":
            return plan.text_salt
        try:
            return int(self.salt)
        except ValueError:
            raise UsageError(
                "a salt is a number, random or plan", where="--salt", expected="an integer", found=self.salt
            ) from None


@Parameter(name="*", group=WATCH)
@dataclass(frozen=True)
class WatchOptions:
    """What is watched while a live run goes on."""

    metrics: Literal["on", "off"] = "on"
    "Ask the servers for their own figures (/metrics) once a second."
    metrics_url: Names = field(default_factory=list)
    "Another page of figures to ask for; may be given again."
    reset_cache: Flag = False
    "Empty the servers' prefix caches before the run, and say so where that could not be done."
    gpu_power: Flag = False
    "Read the power of this machine's NVIDIA GPUs (extra: gpu)."
    debug_trace: Flag = False
    "Keep every request and answer in full (debug.jsonl in the run's directory)."

    def given(self) -> list[str]:
        return _given(self)


def _given(options: Any) -> list[str]:
    """Names of the options that differ from their defaults."""
    defaults = type(options)()
    names = [f.name for f in fields(options)]
    return ["--" + n.replace("_", "-") for n in names if getattr(options, n) != getattr(defaults, n)]


def _seconds(name: str, value: float | None) -> float | None:
    """A time-out in seconds; None for none."""
    if value is None or value == math.inf:
        return None
    if not value > 0:
        raise UsageError("a time-out is above 0", where=name, expected="seconds, or inf", found=value)
    return value


def _check_pages(watch: WatchOptions) -> None:
    """Pages of figures must be pages, and nobody asks for them where figures are off."""
    stray = [name for name in watch.given() if name in ("--metrics-url", "--gpu-power")]
    if watch.metrics == "off" and stray:
        raise UsageError("figures are off", where=", ".join(stray), hint="leave --metrics off out")
    for url in watch.metrics_url:
        shown = url.rpartition("@")[2]
        if not url.startswith(("http://", "https://")):
            raise UsageError("no page of figures", where="--metrics-url", expected="http(s)://...", found=shown)
        if "@" in url:
            what = "the URL of a page of figures holds a user name or a password"
            raise UsageError(what, where="--metrics-url", hint="send them in a header: --header NAME:VALUE")


def target(server: ServerOptions, text: TextOptions, watch: WatchOptions, preset: Preset | None) -> Live:
    """What the options ask for; its salt and model may still be open."""
    from workloom.drive.targets import HttpOptions
    from workloom.execute import Live

    retries = server.retries
    if retries is None:
        retries = preset.retries if preset is not None else 0
    for name, value, least in (("--retries", retries, 0), ("--workers", server.workers, 1)):
        if not least <= value <= 64:
            raise UsageError("a count is out of range", where=name, expected=f"{least} to 64", found=value)
    _check_pages(watch)
    api = server.endpoint or (preset.endpoint if preset is not None else "chat")
    if text.tools and api == "completions":
        what = "completions have no tools"
        raise UsageError(what, where="--tools", hint="leave --tools out, or use --endpoint chat, responses or messages")
    http = HttpOptions(
        urls=tuple(server.url),
        model=server.model or "",
        models=server.models(),
        api=api,
        token_ids=text.text.partition(":")[0] == "ids",
        output=server.output or (preset.output if preset is not None else "exact"),
        limit_field=server.limit_field,
        reasoning=text.reasoning,
        tools=text.tools,
        correct=text.correct == "on",
        api_key=server.api_key,
        headers=server.headers(),
        body={**(preset.body if preset is not None else {}), **server.fields()},
        affinity_headers=tuple(server.session_header) or (preset.affinity_headers if preset is not None else ()),
        retries=retries,
        connect_timeout_s=_seconds("--connect-timeout", server.connect_timeout),
        first_byte_timeout_s=_seconds("--first-byte-timeout", server.first_byte_timeout),
        verify=not server.insecure,
        ca_file=server.ca_file,
        proxy=server.proxy,
    )
    return Live(
        http=http,
        salt=0,
        text=text.text,
        tokenizer=text.tokenizer,
        workers=server.workers,
        scrape=watch.metrics == "on",
        metrics_urls=tuple(watch.metrics_url),
        gpu_power=watch.gpu_power,
        reset_cache=watch.reset_cache,
        debug_trace=watch.debug_trace,
    )


def ask(live: Live) -> Live:
    """The target with what its servers say before the run: the model, if none was named, and its longest context."""
    from msgspec.structs import replace

    from workloom.execute import preflight

    said = preflight(live)
    models = said.models or []
    if not live.http.model:
        if said.models is None:
            hint = f"{said.hint}; a server that lists no models needs --model NAME" if said.hint else None
            raise UsageError(said.warning or "the server lists no models", where="--url", hint=hint)
        if len(models) != 1:
            raise UsageError(
                "which model to ask for is missing",
                where="--model",
                expected="one of: " + ", ".join(models) if models else "a model name",
                hint=said.warning if not models else None,
            )
        live = replace(live, http=replace(live.http, model=models[0]))
    elif said.warning:
        print(f"warning: {said.warning}" + (f" ({said.hint})" if said.hint else ""), file=sys.stderr)
    http = replace(live.http, max_model_len=said.max_model_len)
    return replace(live, http=http, max_model_len=said.max_model_len)


def check_models(models: dict[str, str], plan: Plan) -> None:
    """A UsageError for a model that is given for nobody: an agent or a model that no call of the plan has."""
    if not models:
        return
    known = {name for session in _sessions(plan) for call in session.calls for name in (call.agent, call.model)}
    known.discard("")
    for name in models:
        if name not in known:
            close = nearest(name, list(known))
            raise UsageError(
                "a model is given for an agent or model that no call has",
                where="--model-for",
                expected="one of: " + ", ".join(sorted(known)),
                found=name,
                hint=f"did you mean {close}?" if close else None,
            )


def tell_texts(style: str, history: str, plan: Plan) -> None:
    """Say it when recorded text is asked for of a trace that holds none: words of our own stand for it then."""
    missing = []
    if style == "recorded" and not any(p.text for s in _sessions(plan) for c in s.calls for p in c.fresh):
        missing.append("--text recorded")
    if history == "text" and not any(c.recorded and c.recorded.answer for s in _sessions(plan) for c in s.calls):
        missing.append("--history text")
    if missing:
        what = f"{' and '.join(missing)}: the trace holds no such text, so words of our own stand for it"
        print(f"warning: {what} (`workloom import --keep-text` keeps texts)", file=sys.stderr)


def _sessions(plan: Plan) -> Iterator[Session]:
    return (plan.source[i] for i in range(len(plan.source)))
