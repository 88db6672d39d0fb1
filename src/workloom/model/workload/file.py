"""workload.yaml: read with every fault told, written short and commented, described by a JSON Schema."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import msgspec.inspect
from msgspec import Struct

from workloom import config
from workloom.errors import WorkloadError
from workloom.model.workload.spec import Workload

WIDTH = 116
HEAD = ("workload", "name", "about", "source", "block_tokens", "tick_s", "sessions", "arrivals", "arrivals_tick_s")
"""Keys that come first."""
COMMENTS = {
    "block_tokens =": "tokens of a block that shared prefixes were measured at",
    "tick_s =": "waits are whole multiples of it, as the trace tells them",
    "sessions": "what sessions begin with, by weight",
    "arrivals": "seconds between session starts (used by run --replay)",
    "scaffold": "texts a context begins with; shared by: trace (all sessions), session (its agents), agent (nobody)",
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
_UNREADABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_BREAKS = re.compile(r'"(?:[^"\\]|\\.)*"|, ')


def load(path: Path) -> Workload:
    """The workload in a YAML file. Raises WorkloadError with every fault found."""
    return config.read(path, Workload, WorkloadError, "the workload file")


def schema() -> dict[str, Any]:
    """JSON Schema of a workload file, for completion in editors: every key with what its struct says of it."""
    out = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Workload)}
    for struct in out["$defs"].values():
        text = inspect.cleandoc(struct.get("description", ""))
        struct["description"] = text.split("\n\n", 1)[0].replace("\n", " ")
        for key, said in keys_said(text).items():
            if key in struct["properties"]:
                struct["properties"][key]["description"] = said
    for kind in structs():
        for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
            if isinstance(field.type, msgspec.inspect.DictType):
                _close(out["$defs"][kind.__name__]["properties"][field.encode_name], field.type.key_type)
    return out


def _close(mapping: dict[str, Any], keys: msgspec.inspect.Type) -> None:
    """Name the keys of a mapping, where only some may be there: editors complete what is named."""
    if isinstance(keys, msgspec.inspect.LiteralType):
        mapping["properties"] = {key: mapping["additionalProperties"] for key in keys.values}
        mapping["additionalProperties"] = False


def keys_said(text: str) -> dict[str, str]:
    """What a docstring says of keys: lines `key: ...` behind its first paragraph, and those set in below them."""
    lines = inspect.cleandoc(text).partition("\n\n")[2]
    return {
        match[1]: " ".join(match[2].split()) for match in re.finditer(r"^(\w+): (.*(?:\n +.*)*)", lines, re.MULTILINE)
    }


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
        return value if plain and value.lower() not in _WORDS else _quoted(value)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return repr(value) if isinstance(value, int) else _float(value)


def _quoted(text: str) -> str:
    """Text in quotes: what JSON escapes, and what YAML takes for the end of a line or refuses to read."""
    return _UNREADABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def _float(value: float) -> str:
    """A float as YAML 1.1 reads it: an exponent needs a point before it, and a sign; whole ones need neither."""
    if value.is_integer() and abs(value) < 1e15:
        return repr(int(value))
    if "e" not in repr(value):
        return repr(value)
    mantissa, _, exponent = repr(value).partition("e")
    sign = "" if exponent.startswith(("-", "+")) else "+"
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{sign}{exponent}"


def _folded(line: str, indent: int) -> Iterator[str]:
    """A long flow value over several lines, broken behind commas that are in no quotes."""
    pad = "  " * (indent + 2)
    while len(line) > WIDTH:
        cuts = [match.start() for match in _BREAKS.finditer(line) if match[0] == ", "]
        cut = max((cut for cut in cuts if len(pad) < cut < WIDTH), default=min(cuts, default=0))
        if cut <= len(pad):
            break
        yield line[: cut + 1]
        line = pad + line[cut + 2 :]
    yield line


def structs() -> list[type[Struct]]:
    """Every struct a workload file is made of, for documents and tests."""
    found: dict[str, type[Struct]] = {}

    def walk(kind: msgspec.inspect.Type) -> None:
        if isinstance(kind, msgspec.inspect.StructType) and kind.cls.__name__ not in found:
            found[kind.cls.__name__] = kind.cls
            for field in kind.fields:
                walk(field.type)
        for name in ("types", "item_types"):
            for inner in getattr(kind, name, ()):
                walk(inner)
        for name in ("item_type", "value_type"):
            if hasattr(kind, name):
                walk(getattr(kind, name))

    walk(msgspec.inspect.type_info(Workload))
    return list(found.values())
