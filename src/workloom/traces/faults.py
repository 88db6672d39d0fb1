"""What the decoder says about bad input, as TraceErrors that name place, field, expected and found."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from workloom.errors import TraceError, nearest

DECODER_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Everything that decoding foreign bytes into structs can raise."""

_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_TYPE = re.compile(r"Expected (.*?)(?:, got (.*))?$")


def misfit(place: str, data: bytes, error: Exception, *, what: str, known: list[str] | None = None) -> TraceError:
    """The error for `data`, found at `place`, that could not be decoded; `known`: field names for a hint."""
    if not isinstance(error, msgspec.ValidationError):
        return TraceError(what, where=place, expected="JSON in UTF-8", found=f"{error} in {short(data)}")
    said, _, field = str(error).partition(" - at ")
    steps = re.findall(r"\[(\d+|\.\.\.)\]|\.([^.\[]+)", field.strip("`"))  # [...]: some value of an object
    value = _walk(data, steps)
    name = "".join(f"[{index}]" if index else f".{key}" for index, key in steps).lstrip(".")
    hint = None
    if match := _MISSING.match(said):
        name = f"{name}.{match[1]}".lstrip(".")
        expected, found = "the field is required", f"only {', '.join(value)}" if isinstance(value, dict) else "nothing"
    elif match := _UNKNOWN.match(said):
        close = nearest(match[1], known or [])
        name, hint = f"{name}.{match[1]}".lstrip("."), f"did you mean {close}?" if close else None
        expected, found = "a field of the format", match[1]
    else:
        match = _TYPE.match(said)
        expected, found = match[1] if match else said, short(ascii(value).encode())
    return TraceError(
        "a field is not what the format promises",
        where=f"{place}, {name or 'top level'}",
        expected=expected,
        found=found,
        hint=hint,
    )


def _walk(data: bytes, steps: list[tuple[str, str]]) -> Any:
    """The value at a path, as far as it is told, or None where the rest of the data is malformed too."""
    try:
        value = msgspec.json.decode(data)
        for index, key in steps:
            if index == "...":
                break
            value = value[int(index)] if index else value[key]
    except (*DECODER_ERRORS, KeyError, IndexError, TypeError):
        return None
    return value


def short(data: bytes) -> str:
    """The beginning of some bytes as text."""
    text = data[:400].strip().decode("utf-8", "backslashreplace")
    return text if len(text) <= 80 else f"{text[:60]}... ({len(data):,} bytes)"
