"""Request bodies of the OpenAI API: read, checked, and boiled down to what a simulated model needs."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from workloom.errors import WorkloomError

COMPLETION_TOKENS = 16
"""Answer length where a plain completion asks for none (OpenAI's own default)."""
CHAT_TOKENS = 256
"""The same for a chat: a simulated model never comes to a natural end, and the rest of the context is no answer."""


class BadRequest(WorkloomError):
    """A request that is wrong. `status`: the HTTP status to say so with."""

    def __init__(self, what: str, *, status: int = 400, param: str | None = None) -> None:
        self.status = status
        self.param = param
        super().__init__(what)


class _Text(Struct):
    type: str = "text"
    text: str = ""


class _Message(Struct):
    role: str
    content: str | list[_Text] | None = None


class _StreamOptions(Struct):
    include_usage: bool = False


class _Common(Struct, kw_only=True):
    model: str | None = None
    stream: bool | None = False
    max_tokens: int | None = None
    n: int | None = 1
    stream_options: _StreamOptions | None = None


class _Chat(_Common, kw_only=True):
    messages: list[_Message]
    max_completion_tokens: int | None = None


class _Completion(_Common, kw_only=True):
    prompt: str | list[int | str | list[int]]


_chat = msgspec.json.Decoder(_Chat).decode
_completion = msgspec.json.Decoder(_Completion).decode


class Ask(Struct):
    """What a request asks for. `max_tokens` None: the default, or what room is left."""

    text: str
    model: str | None
    stream: bool
    usage_at_end: bool
    max_tokens: int | None
    default_tokens: int


def chat(body: bytes) -> Ask:
    """A body of /v1/chat/completions: the prompt is the words of all messages in order. Raises BadRequest."""
    try:
        asked = _chat(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise BadRequest(_said(fault)) from None
    if not asked.messages:
        raise BadRequest("messages is empty: at least one message is needed", param="messages")
    texts = []
    for message in asked.messages:
        content = message.content
        if isinstance(content, list):
            odd = next((part.type for part in content if part.type != "text"), None)
            if odd is not None:
                raise BadRequest(f"content of type {odd!r} is not understood, only text", param="messages")
            texts += [part.text for part in content]
        elif content:
            texts.append(content)
    most = asked.max_completion_tokens if asked.max_completion_tokens is not None else asked.max_tokens
    return _ask(asked, " ".join(texts), most, CHAT_TOKENS)


def completion(body: bytes) -> Ask:
    """A body of /v1/completions: the prompt is a text, or numbers of tokens. Raises BadRequest."""
    try:
        asked = _completion(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise BadRequest(_said(fault)) from None
    return _ask(asked, _text_of(asked.prompt), asked.max_tokens, COMPLETION_TOKENS)


def _text_of(prompt: str | list[int | str | list[int]]) -> str:
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0]  # type: ignore[assignment]
    if isinstance(prompt, str):
        return prompt
    if not all(isinstance(token, int) for token in prompt):
        raise BadRequest("one prompt a request is served, not several", param="prompt")
    return " ".join([f"\0{token}" for token in prompt])  # a token is a word that no text has


def _ask(asked: _Common, text: str, most: int | None, default: int) -> Ask:
    if asked.n not in (None, 1):
        raise BadRequest(f"one answer a request is given: n must be 1, not {asked.n}", param="n")
    if most is not None and most < 1:
        raise BadRequest(f"max_tokens must be at least 1, not {most}", param="max_tokens")
    usage = asked.stream_options is not None and asked.stream_options.include_usage
    return Ask(text, asked.model, bool(asked.stream), usage, most, default)


def _said(fault: Exception) -> str:
    return f"the body is not a request this server understands: {fault}"
