"""Attributes of spans: the typed values of OTLP (`{"intValue": "12"}`) or plain JSON, read by name when asked for."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from workloom.errors import TraceError
from workloom.session import MOST_TOKENS

LONGEST_S = 1e9


class _KeyValue(Struct):
    key: str
    value: Raw = Raw(b"null")


_listed = msgspec.json.Decoder(list[_KeyValue] | None)
_mapped = msgspec.json.Decoder(dict[str, Raw])


def attributes(data: Raw, place: str = "") -> Attributes:
    """The attributes of a span as OTLP lists them or the SDKs map them. Raises what decoding raises."""
    begin = bytes(data).lstrip()[:1]
    if begin == b"{":
        return Attributes(_mapped.decode(data), False, place)
    if not begin:
        return Attributes({}, False, place)
    return Attributes({item.key: item.value for item in _listed.decode(data) or ()}, True, place)


class Attributes(Struct):
    """Values by name, not decoded yet. Of several names given, the first that is there counts."""

    raw: dict[str, Raw]
    typed: bool
    place: str

    def has(self, *names: str) -> bool:
        return any(name in self.raw for name in names)

    def value(self, *names: str) -> tuple[str, object]:
        """(name, value) of the first that is there and not null."""
        for name in names:
            if name in self.raw:
                value = self._plain(name)
                if value is not None:
                    return name, value
        return "", None

    def text(self, *names: str) -> str | None:
        _, value = self.value(*names)
        return str(value) if isinstance(value, (str, int)) and value != "" else None

    def count(self, *names: str) -> int | None:
        """A count of tokens. Raises a TraceError."""
        name, value = self.value(*names)
        if value is None:
            return None
        number = _number(value)
        if number is None or not 0 <= number <= MOST_TOKENS or number != int(number):
            raise self._fault(name, "a count of tokens", value)
        return int(number)

    def seconds(self, *names: str) -> float | None:
        name, value = self.value(*names)
        if value is None:
            return None
        number = _number(value)
        if number is None or not 0 <= number <= LONGEST_S:
            raise self._fault(name, "seconds", value)
        return number

    def flag(self, *names: str) -> bool | None:
        _, value = self.value(*names)
        return value if isinstance(value, bool) else None

    def content(self, *names: str) -> str | None:
        """A text, or the JSON of anything else."""
        _, value = self.value(*names)
        if value is None or isinstance(value, str):
            return value
        return msgspec.json.encode(value).decode("utf-8", "replace")

    def json(self, *names: str) -> bytes | None:
        """A value as JSON."""
        for name in names:
            if name in self.raw and not self.typed:
                data = bytes(self.raw[name])
                if data not in (b"null", b'""', b"[]"):
                    return data
        _, value = self.value(*names) if self.typed else ("", None)
        return msgspec.json.encode(value) if value not in (None, "", []) else None

    def plain(self) -> dict[str, object]:
        """All of them."""
        return {name: self._plain(name) for name in self.raw}

    def _plain(self, name: str) -> object:
        value: object = msgspec.json.decode(self.raw[name])
        return _untyped(value) if self.typed else value

    def _fault(self, name: str, expected: str, value: object) -> TraceError:
        what = "an attribute is not what the conventions promise"
        return TraceError(what, where=f"{self.place}, attributes.{name}", expected=expected, found=f"{value!r:.80}")


def _untyped(value: object) -> object:
    """The plain value of an OTLP value."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((kind, inner),) = value.items()
    if kind == "intValue":
        return int(inner) if isinstance(inner, str) and inner.lstrip("-").isdecimal() and len(inner) < 40 else inner
    if kind == "arrayValue":
        items = inner.get("values") if isinstance(inner, dict) else None
        return [_untyped(item) for item in items] if isinstance(items, list) else []
    if kind == "kvlistValue":
        items = inner.get("values") if isinstance(inner, dict) else None
        pairs = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
        return {str(pair.get("key")): _untyped(pair.get("value")) for pair in pairs}
    return inner


def _number(value: object) -> float | None:
    """A number, also one in a string; nothing else, and no flag."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value else None


def unflattened(said: Attributes, prefixes: tuple[str, ...]) -> bytes | None:
    """A list spread over attributes, as JSON: `gen_ai.prompt.0.role`, `llm.input_messages.0.message.role`."""
    tree: dict[str, object] = {}
    for prefix in prefixes:
        for name in said.raw:
            if name.startswith(prefix):
                *path, last = name[len(prefix) :].split(".")
                inner = tree
                for step in path[:12]:
                    below = inner.setdefault(step, {})
                    if not isinstance(below, dict):
                        break
                    inner = below
                else:
                    inner[last] = said.value(name)[1]
        if tree:
            return msgspec.json.encode(_folded(tree))
    return None


_WRAPS = ("message", "tool_call", "message_content", "tool", "json_schema", "function")


def _folded(value: object) -> object:
    """Objects with numbers for keys as lists, and objects in one of OpenInference's wrappers without it."""
    if not isinstance(value, dict):
        return value
    if value and all(key.isdecimal() for key in value):
        return [_folded(value[key]) for key in sorted(value, key=lambda key: (len(key), key))]
    out: dict[str, object] = {}
    for key, inner in value.items():
        folded = _folded(inner)
        if key in _WRAPS and isinstance(folded, dict):
            out.update(folded)
        else:
            out["content" if key == "contents" else key] = folded
    return out
