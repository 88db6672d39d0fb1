"""workload.yaml: read with every fault told, written short and commented, described by a JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from workloom import config
from workloom.errors import WorkloadError
from workloom.model.workload.spec import Workload

WIDTH = 116
HEAD = ("workload", "name", "about", "source", "block_tokens", "sessions", "arrivals")
"""Keys that come first."""
COMMENTS = {
    "block_tokens =": "tokens of a block that shared prefixes were measured at",
    "sessions": "what sessions begin with, by weight",
    "arrivals": "seconds between session starts (used by run --replay)",
    "scaffold": "texts a context begins with; shared: session (its agents share it) or trace (all sessions do)",
    "first": "the message behind the scaffold, and the answer to it, in tokens",
    "calls": "calls of one agent in one session",
    "turns": "calls by the gap before them: new tokens, tokens of the answer, seconds waited",
    "share": "of an agent's calls, drawn for each session",
    "ranks": "rank correlations",
    "memory": "session: share of the variance that is the session's own; carry: correlation with the call before",
    "reworded": "answers that come back as other text, in which share of calls; `new` tokens more",
    "history": "what a prompt does not keep of the one before",
    "compaction": "beyond `trigger` tokens the context begins anew with `target` tokens",
    "rewrite": "prompts changed further up: `keeps` is the share of the context left as it was",
    "delegates": "subagents: in which share of sessions, how often, how many at once, who waits",
    "graph": "for every call the calls it waits for, by number",
    "retries": "calls cut off and sent again",
    "pauses": "seconds before the call of a number",
}
"""Said above the first use of a key; with = of a key whose value is a number."""
_WORDS = ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
"""What YAML 1.1 takes for something else than text."""


def load(path: Path) -> Workload:
    """The workload in a YAML file. Raises WorkloadError with every fault found."""
    return config.read(path, Workload, WorkloadError, "the workload file")


def schema() -> dict[str, Any]:
    """JSON Schema of a workload file, for completion in editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Workload)}


def dump(workload: Workload, notes: Mapping[str, str] | None = None) -> str:
    """The workload as YAML with comments; `notes`: more of them, by the place of a value (``agents.main.calls``)."""
    told = _plain(workload)
    order = [*HEAD, *(key for key in told if key not in (*HEAD, "agents")), "agents"]
    head = ["# A workload: edit it, and `workloom synth` makes sessions of it. `workloom schema` describes every key."]
    lines = _Lines(dict(notes or {}))
    lines.mapping({key: told[key] for key in order if key in told}, 0, "")
    return "\n".join([*head, *lines.out]) + "\n"


def _plain(value: Any) -> Any:
    """Structs as mappings without what is at its default, but for the version."""
    if isinstance(value, Struct):
        config = value.__struct_config__
        out: dict[str, Any] = {config.tag_field: config.tag} if config.tag_field is not None else {}
        for field in msgspec.structs.fields(value):
            here = getattr(value, field.name)
            default = field.default_factory() if callable(field.default_factory) else field.default
            if field.name == "workload" or here != default:
                out[field.encode_name] = _plain(here)
        return out
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


class _Lines:
    def __init__(self, notes: dict[str, str]) -> None:
        self.out: list[str] = []
        self._notes = notes
        self._commented: set[str] = set()

    def mapping(self, data: Mapping[Any, Any], indent: int, place: str) -> None:
        for key, value in data.items():
            where = f"{place}.{key}".lstrip(".")
            self._entry(f"{_scalar(key)}:", str(key), value, indent, where)

    def _entry(self, label: str, key: str, value: Any, indent: int, where: str) -> None:
        pad = "  " * indent
        comment = COMMENTS.get(key if isinstance(value, dict | list) else f"{key} =")
        if comment is not None and comment not in self._commented:
            self._commented.add(comment)
            self.out.append(f"{pad}# {comment}")
        note = f"  # {self._notes[where]}" if where in self._notes else ""
        flow = _flow(value)
        line = f"{pad}{label} {flow}"
        if _leaf(value) or (not _nested(value) and len(line) < WIDTH):
            if len(line) + len(note) <= WIDTH:
                self.out.append(line + note)
                return
            if note:
                self.out.append(f"{pad}{note.strip()}")
            self.out += _folded(line, indent)
        elif isinstance(value, dict):
            self.out.append(f"{pad}{label}")
            self.mapping(value, indent + 1, where)
        else:
            self.out.append(f"{pad}{label}")
            for i, item in enumerate(value):
                self._item(item, indent + 1, f"{where}[{i}]")

    def _item(self, item: Any, indent: int, where: str) -> None:
        pad = "  " * indent
        if not isinstance(item, dict) or (not _nested(item) and len(pad) + len(_flow(item)) < WIDTH - 2):
            self.out.append(f"{pad}- {_flow(item)}")
            return
        start = len(self.out)
        self.mapping(item, indent + 1, where)
        first = next(i for i in range(start, len(self.out)) if not self.out[i].lstrip().startswith("#"))
        self.out[first] = f"{pad}- {self.out[first].lstrip()}"


def _leaf(value: Any) -> bool:
    return not isinstance(value, dict | list | tuple) or (isinstance(value, dict) and "family" in value)


def _nested(value: Any) -> bool:
    """Whether a value holds mappings or lists of mappings that want lines of their own."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return any(isinstance(item, dict) or (isinstance(item, list | tuple) and _nested(item)) for item in inside)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z][\w./-]*( [\w./-]+)*", value)
        return (
            value
            if plain and value.lower() not in ("yes", "no", "on", "off", "true", "false", "null")
            else json.dumps(value)
        )
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return repr(value) if isinstance(value, int) or "e" not in repr(value) else _float(value)


def _float(value: float) -> str:
    """A float that YAML 1.1 reads as one: an exponent needs a point before it, and a sign."""
    mantissa, _, exponent = repr(value).partition("e")
    sign = "" if exponent.startswith(("-", "+")) else "+"
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{sign}{exponent}"


def _folded(line: str, indent: int) -> Iterator[str]:
    """A long flow value over several lines, broken behind commas."""
    pad = "  " * (indent + 2)
    while len(line) > WIDTH:
        cut = line.rfind(", ", 0, WIDTH)
        if cut <= len(pad):
            break
        yield line[: cut + 1]
        line = pad + line[cut + 2 :]
    yield line


def structs() -> list[type[Struct]]:
    """Every struct a workload file is made of, for documents and tests."""
    from msgspec import inspect

    found: dict[str, type[Struct]] = {}

    def walk(kind: inspect.Type) -> None:
        if isinstance(kind, inspect.StructType) and kind.cls.__name__ not in found:
            found[kind.cls.__name__] = kind.cls
            for field in kind.fields:
                walk(field.type)
        for name in ("types", "item_types"):
            for inner in getattr(kind, name, ()):
                walk(inner)
        for name in ("item_type", "value_type"):
            if hasattr(kind, name):
                walk(getattr(kind, name))

    walk(inspect.type_info(Workload))
    return list(found.values())
