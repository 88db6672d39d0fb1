"""Where calls go and by which names: several servers balanced by session, models by role, affinity headers, secrets.

instance k --> target k mod n          all calls of a session go to one server, whatever the timing
agent, model --> served model          by role first, then by the trace's name of the model, else the one model
session --> affinity value             equal for all its calls, unlike any other run's
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from workloom import seeds
from workloom.drive.api import APIS, TOKEN_IDS, Api, OutputMode
from workloom.drive.http1 import Endpoint
from workloom.drive.tunnel import Proxy, proxy_from
from workloom.errors import UsageError, nearest

ApiName = Literal["chat", "completions", "responses", "messages"]
FREE_LIMIT = 8192
"""Output tokens asked for in the mode `free` by an API that wants a limit, where the context leaves room for them."""


class HttpOptions(Struct, frozen=True, kw_only=True):
    """How a live run talks to its servers."""

    urls: tuple[str, ...]
    """Base URLs, up to and with ``/v1``; the sessions are dealt to them in turn."""
    model: str
    models: dict[str, str] = {}
    """Served models by agent role or by the trace's name of a model; all others are `model`."""
    api: ApiName = "chat"
    token_ids: bool = False
    """The style writes token ids: prompts of completions are lists of them."""
    output: OutputMode = "exact"
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What chat completions call the limit on output tokens."""
    reasoning: Literal["keep", "drop"] = "keep"
    """What an agent's history keeps of an answer: its reasoning too, or what it said alone."""
    max_model_len: int | None = None
    """The longest call in tokens, where it is known: a limit that an API wants in the mode `free` keeps within it."""
    tools: bool = False
    """Definitions become the tools array, and tools answer in messages of their own."""
    correct: bool = False
    """Prompts are corrected by the server's counts."""
    api_key: str | None = None
    headers: dict[str, str] = {}
    body: dict[str, Any] = {}
    """Extra body fields; None takes a default one (``ignore_eos``, ``stream_options``, ``min_tokens``) away."""
    affinity_headers: tuple[str, ...] = ()
    """Header names that carry the session's key."""
    salt: int = 0
    """Makes affinity keys unlike other runs'."""
    retries: int = 0
    """How often a call is sent again that failed before its first chunk."""
    connect_timeout_s: float | None = 10.0
    first_byte_timeout_s: float | None = None
    verify: bool = True
    ca_file: str | None = None
    proxy: str = "env"
    """A proxy's URL; ``env``: as the environment says; ``none``."""

    def public(self) -> dict[str, Any]:
        """For a manifest: everything but the API key. (Values of headers are for the caller to hide.)"""
        found: dict[str, Any] = msgspec.to_builtins(self)
        del found["api_key"]
        return found

    def served(self, agent: str, model: str) -> str:
        """The name by which a call's model is asked for."""
        if not self.models:
            return self.model
        return self.models.get(agent) or self.models.get(model) or self.model

    @property
    def served_models(self) -> list[str]:
        """Every name that may be asked for, each once."""
        return list(dict.fromkeys((self.model, *self.models.values())))

    def speaks(self) -> Api:
        """The API; a UsageError for options that do not fit it."""
        api = APIS.get(self.api)
        if api is None:
            close = nearest(self.api, list(APIS))
            raise UsageError(
                f"there is no API {self.api!r}",
                expected=", ".join(APIS),
                hint=f"did you mean {close}?" if close else None,
            )
        if self.token_ids and api.name != "completions":
            raise UsageError(f"prompts of token ids cannot be sent to {api.name}", hint="add --endpoint completions")
        if self.token_ids:
            return TOKEN_IDS
        if self.limit_field != "max_tokens":
            if api.name != "chat":
                raise UsageError(f"{api.name} has no field {self.limit_field}", hint="only chat completions do")
            return replace(api, limit_field=self.limit_field)
        return api

    def endpoints(self, environ: Mapping[str, str] | None = None) -> list[Endpoint]:
        """Where the servers are, each with the proxy on the way to it."""
        if not self.urls:
            raise UsageError("no URL of a server is given")
        environ = os.environ if environ is None else environ
        return [self._way(Endpoint.parse(url, self.verify, self.ca_file), environ) for url in self.urls]

    def _way(self, end: Endpoint, environ: Mapping[str, str]) -> Endpoint:
        if self.proxy == "none":
            return end
        if self.proxy == "env":
            return replace(end, proxy=proxy_from(environ, end.host, end.port, end.tls is not None))
        if "@" in self.proxy:
            raise UsageError(
                "the URL of the proxy holds a user name or a password",
                hint="put it into the environment: HTTP_PROXY or HTTPS_PROXY",
            )
        return replace(end, proxy=Proxy.parse(self.proxy, "the proxy that was asked for"))

    def affinity(self, session_key: str) -> bytes:
        """The header lines that keep a session together."""
        if not self.affinity_headers:
            return b""
        value = b"%016x" % seeds.number(self.salt, "affinity", session_key)
        return b"".join(b"%s: %s\r\n" % (name.encode(), value) for name in self.affinity_headers)


def header_lines(options: HttpOptions, api: Api, endpoint: Endpoint) -> bytes:
    """The header lines that every request to an endpoint carries."""
    lines = {
        "Host": endpoint.authority,
        "Accept": "text/event-stream, application/json",
        "User-Agent": "workloom",
        **api.headers,
    }
    key = (options.api_key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(
            "the API key cannot be sent: it holds control characters or is not ASCII",
            hint="look at the environment variable that holds it",
        )
    if key:
        name, before = api.key_header
        lines[name] = before + key
    if endpoint.proxy is not None and endpoint.tls is None and endpoint.proxy.authorization is not None:
        lines["Proxy-Authorization"] = endpoint.proxy.authorization
    for name, value in options.headers.items():
        for known in [known for known in lines if known.lower() == name.lower()]:
            del lines[known]
        lines[name] = value
    for name, value in [*lines.items(), *((name, "") for name in options.affinity_headers)]:
        bad = not name or not name.isascii() or any(c in "\r\n: \t" for c in name)
        if bad or not (value.isascii() and value.isprintable()) or name.lower() in _FRAMING:
            raise UsageError(f"the header {name!r} cannot be sent", hint="a name and a line of ASCII text, no framing")
    return "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("ascii")


_FRAMING = ("content-length", "transfer-encoding", "connection", "content-type")


def request_path(endpoint: Endpoint, path: str) -> bytes:
    """What a request line asks for: the path, or all of the URL when a proxy is to carry it on."""
    where = f"{endpoint.path}{path}"
    if endpoint.proxy is not None and endpoint.tls is None:
        where = f"http://{endpoint.authority}{where}"
    return where.encode()


def body_start(options: HttpOptions, api: Api, model: str) -> bytes:
    """The body up to where the prompt begins, with the comma before it."""
    own = [name for name in options.body if name in owned(options, api)]
    own = [name for name in own if name != "min_tokens" or options.body[name] is not None]
    if own:
        raise UsageError(
            f"the body field {own[0]} is the workload's to set",
            hint="leave exact output lengths off: --output cap" if own[0] == "min_tokens" else "leave it out",
        )
    fields: dict[str, Any] = {"model": model, **api.stream_fields}
    if options.output == "exact":
        fields["ignore_eos"] = True
    fields.update({name: value for name, value in options.body.items() if name != api.limit_field})
    try:
        start = msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
    except (TypeError, ValueError) as error:
        raise UsageError("the extra body fields are not JSON", found=error) from None
    return start[:-1] + b","


def owned(options: HttpOptions, api: Api) -> tuple[str, ...]:
    """Body fields that the workload decides; in the mode `free` a limit on outputs is the user's."""
    prompt = [name for name in api.prompt_fields if name != "tools" or options.tools]
    limits = () if options.output == "free" else (api.limit_field, "min_tokens")
    return ("model", "stream", *prompt, *limits)


class Tail:
    """What closes a body: how many tokens are asked for."""

    def __init__(self, options: HttpOptions, api: Api) -> None:
        field = api.limit_field.encode()
        self._twice = options.output == "exact" and "min_tokens" not in options.body
        self._capped = b',"%s":%%d' % field + (b',"min_tokens":%d}' if self._twice else b"}")
        self._free: tuple[bytes, int | None] | None = None
        if options.output == "free":
            given = options.body.get(api.limit_field, FREE_LIMIT if api.needs_limit else None)
            if given is not None and (not isinstance(given, int) or isinstance(given, bool)):
                raise UsageError(f"the body field {api.limit_field} is no number of tokens", found=given)
            self._free = (b"}", None) if given is None else (self._capped % given, given)
        self._longest = None if api.limit_field in options.body else options.max_model_len

    def of(self, tokens: int, bounded: bool, prompt_tokens: int) -> tuple[bytes, int | None]:
        """The bytes for a call of so many tokens, and the most tokens it asks for; `bounded` in any mode."""
        if self._free is not None and not bounded:
            if self._longest is None or self._free[1] is None:
                return self._free
            room = self._longest - prompt_tokens - prompt_tokens // 16 - 64  # what a template and live answers may add
            given = max(1, min(self._free[1], room))
            return self._capped % given, given
        return self._capped % ((tokens, tokens) if self._twice else tokens), tokens
