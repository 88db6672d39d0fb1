"""YAML files read into frozen structs: checked whole, faults told together, unknown keys with the nearest known one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
from msgspec import inspect

from workloom.errors import WorkloomError, nearest

if TYPE_CHECKING:
    from yaml.events import Event
    from yaml.nodes import Node

T = TypeVar("T")
SHOWN = 30
"""Faults told of one file."""
FEW = 6
"""So many known keys are all told, also beside the nearest."""
LARGEST = 10_000_000
"""Bytes: what is larger was hardly written by hand."""
DEEPEST = 100
"""Levels of mappings and lists."""
MOST_NODES = 1_000_000
"""Values of a file when its aliases are written out."""
_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "str": "text",
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "null": "nothing",
}
"""What a decoder of JSON calls things, in words of YAML."""


class Fault(NamedTuple):
    """One thing that is wrong: where in the file (``agents.main.calls``), and a sentence."""

    place: str
    says: str


def read(path: Path, kind: type[T], error: type[WorkloomError], what: str) -> T:
    """The struct in a YAML file. Raises `error` with every fault of the file; `what` says what the file should be."""
    text = _text(path, error, what)
    data, lines, found = _parsed(text, path, error, what)
    if not found:
        try:
            return msgspec.convert(data, kind)
        except msgspec.ValidationError as fault:
            found = list(_faults(data, inspect.type_info(kind), "")) or [Fault("", str(fault))]
    told = [_told(fault, lines) for fault in found[:SHOWN]]
    if len(found) > SHOWN:
        told.append(f"and {len(found) - SHOWN} more")
    raise error(f"{what} is malformed", where=str(path), found="\n    ".join(told))


def _text(path: Path, error: type[WorkloomError], what: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise error(f"{what} is too large", where=str(path), expected=f"at most {LARGEST:,} bytes of YAML")
        return content.decode("utf-8-sig")
    except OSError as fault:
        raise error(f"{what} cannot be read", where=str(path), found=fault.strerror) from None
    except UnicodeDecodeError as fault:
        raise error(f"{what} is not text in UTF-8", where=str(path), found=fault) from None


def _parsed(
    text: str, path: Path, error: type[WorkloomError], what: str
) -> tuple[object, dict[str, int], Sequence[Fault]]:
    """What the text says, the line of every place in it, and what is wrong before anybody asks for its meaning."""
    import yaml

    kind = _loader()
    loader = kind(text)
    try:
        if _depth(yaml.parse(text, kind)) > DEEPEST:
            raise error(f"{what} is nested too deeply", where=str(path), expected=f"at most {DEEPEST} levels")
        node = loader.get_single_node()
        if node is None:
            raise error(f"{what} is empty", where=str(path))
        if _size(node, {}) > MOST_NODES:
            raise error(f"{what} is too large", where=str(path), expected=f"at most {MOST_NODES:,} values")
        lines: dict[str, int] = {}
        found = list(_walk(node, "", lines))
        return (None if found else loader.construct_document(node)), lines, found
    except (yaml.YAMLError, ValueError) as fault:  # ValueError: 2024-13-45 looks like a date
        raise error(f"{what} is not YAML", where=str(path), found=" ".join(str(fault).split())) from None
    finally:
        loader.dispose()


@cache
def _loader() -> Any:
    """PyYAML's safe loader, for which 1e3 is a number, as in YAML 1.2 (in YAML 1.1 it is text)."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    number = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^{number.pattern}$"), list("-+.0123456789"))
    return Loader


def _depth(events: Iterable[Event]) -> int:
    """Levels of the deepest value, or one more than DEEPEST: what goes on from here calls itself once a level."""
    import yaml

    depth = deepest = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        deepest = max(deepest, depth)
        if deepest > DEEPEST:
            break
    return deepest


def _size(node: Node, known: dict[int, int]) -> int:
    """Nodes below a node, aliases written out; one that holds itself is beyond all bounds."""
    size = known.get(id(node))
    if size is None:
        known[id(node)] = MOST_NODES + 1
        inner = node.value if isinstance(node.value, list) else ()
        size = 1 + sum(_size(n, known) for item in inner for n in (item if isinstance(item, tuple) else (item,)))
        known[id(node)] = size
    return size


def _walk(node: Node, place: str, lines: dict[str, int]) -> Iterator[Fault]:
    """Note the line of every value; yield keys that are there twice (YAML itself would keep the last)."""
    import yaml

    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _walk(item, f"{place}[{index}]", lines)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            where = _inside(place, key.value)
            if name in seen:
                yield Fault(where, f"the key is there twice (lines {seen[name]} and {line})")
            else:
                seen[name] = lines[where] = line
            yield from _walk(value, where, lines)


def _told(fault: Fault, lines: dict[str, int]) -> str:
    """The fault with its place, and the line of it or of what it would be in."""
    place = fault.place
    while place and place not in lines:
        place = re.sub(r"(^|\.)[^.\[\]]*$|\[\d+\]$", "", place)
    line = f"line {lines[place]}, " if place in lines and fault.place else ""
    return f"{line}{fault.place or 'top level'}: {fault.says}"


def _faults(data: object, kind: inspect.Type, place: str) -> Iterator[Fault]:
    """Everything in `data` that does not fit; nothing if it only fails as a whole."""
    kind = _chosen(data, kind)
    if isinstance(kind, inspect.StructType) and isinstance(data, dict):
        yield from _of_struct(data, kind, place)
        return
    told: list[Fault] = []
    if isinstance(kind, inspect.DictType) and isinstance(data, dict):
        for key, value in data.items():
            told += _of_key(key, kind.key_type, _inside(place, key))
            told += _faults(value, kind.value_type, _inside(place, key))
    elif isinstance(kind, inspect.VarTupleType | inspect.ListType) and isinstance(data, list):
        for index, value in enumerate(data):
            told += _faults(value, kind.item_type, f"{place}[{index}]")
    yield from told
    if not told:
        yield from _leaf(data, kind, place)


def _of_struct(data: dict[Any, Any], kind: inspect.StructType, place: str) -> Iterator[Fault]:
    fields = {field.encode_name: field for field in kind.fields}
    known = [*([kind.tag_field] if kind.tag_field else []), *fields]
    told: list[Fault] = []
    for key, value in data.items():
        if key in fields:
            told += _faults(value, fields[key].type, _inside(place, key))
        elif key not in known:
            told.append(_unknown(key, known, _inside(place, key)))
    told += [
        Fault(place, f"the key {name} is missing")
        for name, field in fields.items()
        if field.required and name not in data
    ]
    yield from told
    if not told:
        yield from _leaf(data, kind, place)


def _of_key(key: object, kind: inspect.Type, place: str) -> Iterator[Fault]:
    """Whether a key of a mapping is one that may be there."""
    if isinstance(kind, inspect.LiteralType):
        if key not in kind.values:
            yield _unknown(key, [str(value) for value in kind.values], place)
    elif isinstance(kind, inspect.StrType | inspect.IntType):
        wanted = str if isinstance(kind, inspect.StrType) else int
        if not isinstance(key, wanted) or isinstance(key, bool):
            yield Fault(place, f"a key here is {_WORDS[wanted.__name__]}, not {_shown(key)}")


def _unknown(key: object, known: list[str], place: str) -> Fault:
    close = nearest(str(key), known)
    more = f"; did you mean {close}?" if close else ""
    every = f" (known: {', '.join(known)})" if not close or len(known) <= FEW else ""
    return Fault(place, f"there is no such key{more}{every}")


def _chosen(data: object, kind: inspect.Type) -> inspect.Type:
    """Of a union the struct that the data names by its tag, or the only one that could be meant."""
    if not isinstance(kind, inspect.UnionType):
        return kind
    structs = [k for k in kind.types if isinstance(k, inspect.StructType)]
    if isinstance(data, dict):
        for struct in structs:
            if struct.tag_field is not None and data.get(struct.tag_field) == struct.tag:
                return struct
        if len(structs) == 1:
            return structs[0]
    return kind


def _leaf(data: object, kind: inspect.Type, place: str) -> Iterator[Fault]:
    """What the decoder says of a value by itself."""
    tagged = [k for k in getattr(kind, "types", (kind,)) if isinstance(k, inspect.StructType) and k.tag_field]
    if tagged and not (isinstance(data, dict) and data.get(tagged[0].tag_field) in [k.tag for k in tagged]):
        if data is not None or not _optional(kind):
            yield _untagged(data, tagged, place)
        return
    if isinstance(kind, inspect.LiteralType) and data not in kind.values:
        known = [str(value) for value in kind.values]
        close = nearest(str(data), known)
        hint = f"; did you mean {close}?" if close else ""
        yield Fault(place, f"expected {' or '.join(known)}, found {_shown(data)}{hint}")
        return
    try:
        msgspec.convert(data, _python_type(kind))
    except msgspec.ValidationError as fault:
        said, _, inside = str(fault).partition(" - at ")
        where = place + inside.strip("`").removeprefix("$")
        if said.startswith(("Expected", "Invalid")):
            yield Fault(where, _in_words(said, data))
            return
        for line in said.splitlines():  # a check of the struct itself says one fault a line, with its place before it
            inner, colon, says = line.partition(": ")
            yield Fault(_inside(where, inner), says) if colon and not tagged else Fault(where, line)


def _untagged(data: object, tagged: list[inspect.StructType], place: str) -> Fault:
    """A value that does not say which of several structs it is."""
    field, tags = tagged[0].tag_field, [str(struct.tag) for struct in tagged]
    if not isinstance(data, dict):
        return Fault(place, f"expected a mapping such as {{{field}: {tags[0]}, ...}}, found {_shown(data)}")
    said = data.get(field)
    close = nearest(str(said), tags) if said is not None else None
    hint = f"; did you mean {close}?" if close else ""
    return Fault(_inside(place, field), f"expected one of {', '.join(tags)}, found {_shown(said)}{hint}")


def _in_words(said: str, data: object) -> str:
    """A sentence of the decoder, in words of YAML and with the value found."""
    said = re.sub(r"`(\w+)( \| \w+)*`", lambda m: " or ".join(_WORDS.get(w, w) for w in m[0][1:-1].split(" | ")), said)
    said = said[:1].lower() + said[1:].replace(", got ", ", found ")
    if isinstance(data, dict | list):
        return said
    return f"{said.partition(', found ')[0]}, found {_shown(data)}"


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = "nothing" if value is None else repr(value) if isinstance(value, str) and not value else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _inside(place: str, key: object) -> str:
    return f"{place}.{key}" if place else str(key)


def _optional(kind: inspect.Type) -> bool:
    return any(isinstance(k, inspect.NoneType) for k in getattr(kind, "types", ()))


def _python_type(kind: inspect.Type) -> Any:
    """The annotation that a type description was made from, as far as workloads and profiles use them."""
    match kind:
        case inspect.StructType():
            return kind.cls
        case inspect.UnionType():
            out: Any = None
            for part in kind.types:
                plain = _python_type(part)
                out = plain if out is None else out | plain
            return out
        case inspect.DictType():
            return dict[_python_type(kind.key_type), _python_type(kind.value_type)]  # type: ignore[misc]
        case inspect.VarTupleType():
            return tuple[_python_type(kind.item_type), ...]  # type: ignore[misc]
        case inspect.TupleType():
            return tuple[tuple(_python_type(part) for part in kind.item_types)]  # type: ignore[misc]
        case inspect.LiteralType():
            from typing import Literal

            return Literal[tuple(kind.values)]
        case inspect.IntType():
            return _limited(int, kind)
        case inspect.FloatType():
            return _limited(float, kind)
        case inspect.StrType():
            return str
        case inspect.BoolType():
            return bool
        case inspect.NoneType():
            return type(None)
        case _:
            return Any


def _limited(plain: type, kind: inspect.IntType | inspect.FloatType) -> Any:
    from typing import Annotated

    limits = {name: getattr(kind, name) for name in ("ge", "gt", "le", "lt") if getattr(kind, name) is not None}
    return Annotated[plain, msgspec.Meta(**limits)] if limits else plain
