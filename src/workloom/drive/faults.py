"""What servers say when they refuse, in their several ways, as a BackendError of the right kind."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from workloom.clock import host
from workloom.errors import BackendError

_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|context_window_exceeded"
    r"|context (length|size|window|limit)"
    r"|maximum (model|sequence|prompt|input) (length|len)|max_model_len|max_seq_len|max_num_tokens"
    r"|(prompt|input|request)( \([^)]*\))? is (too long|longer than)",
    re.IGNORECASE,
)
"""vLLM: "maximum context length is ...", "longer than the maximum model length". SGLang: "longer than the model's
context length". llama.cpp: exceed_context_size_error. OpenAI: context_length_exceeded. Anthropic: "prompt is too long".
TensorRT-LLM: max_seq_len, max_num_tokens."""
_OVERFLOWS = (200, 400, 413, 422, 500)
"""Statuses that may mean it: some servers report it as a fault of their own, or in the stream."""

_HINTS = {
    400: "the server may not know an extra body field: ask for no exact output lengths, or look at the extra fields",
    401: "set the API key in the environment",
    403: "set the API key in the environment",
    404: "is the URL's path right (it often ends in /v1), and the model's name?",
    422: "the server may not know an extra body field: ask for no exact output lengths",
    429: "the server limits the rate of requests",
}
_TOO_LONG_HINT = "a lower --max-context keeps calls within what the server can take"
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "api_error": 500,
    "server_error": 500,
    "overloaded_error": 529,
}
"""What the names that Anthropic and OpenAI give to errors inside a stream would have been as statuses."""


def refused(status: int, body: bytes, head: bytes = b"") -> BackendError:
    """The fault of an answer whose status is not 200; servers put its message in several places."""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = body.decode("utf-8", "replace").strip()
    said, names = _message(found)
    text = f": {said}" if said else ""
    if status in _OVERFLOWS and _TOO_LONG.search(f"{names} {said}"):
        return BackendError(
            "context_overflow",
            f"the server answered with status {status}{text}",
            status=status,
            hint=_TOO_LONG_HINT,
        )
    return BackendError(
        "http_status",
        f"the server answered with status {status}{text}",
        status=status,
        hint=_HINTS.get(status),
        retry_after_s=retry_after_s(head),
    )


def reported(error: Any) -> BackendError:
    """The fault that a server reported after it had said 200: its `error`, or the event that has a `message`."""
    said, names = _message(error)
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and not isinstance(code, bool) else 200
    for name in names.split():
        status = _STATUSES.get(name, status)
    kind = "context_overflow" if status in _OVERFLOWS and _TOO_LONG.search(f"{names} {said}") else "http_status"
    hint = _TOO_LONG_HINT if kind == "context_overflow" else None
    return BackendError(kind, f"the server reports an error: {said}", status=status, hint=hint)


def _message(found: Any) -> tuple[str, str]:
    """What an error says, and the names (type, code) it goes by."""
    names = ""
    for _ in range(2):
        if not isinstance(found, dict):
            break
        names += "".join(f" {found[key]}" for key in ("type", "code") if isinstance(found.get(key), str))
        found = found.get("error") or found.get("message") or found.get("detail") or found
    return (str(found)[:500] if found else ""), names


def retry_after_s(head: bytes) -> float | None:
    """What a Retry-After header asks for: seconds, or until a date."""
    found = re.search(rb"\r\nretry-after:[ \t]*([^\r\n]*)", head, re.IGNORECASE)
    if found is None:
        return None
    text = found[1].decode("latin-1").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - host.wall()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds < float("inf") else None
