"""YAML files read into frozen structs: checked whole, faults told together, unknown keys with the nearest known one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from workloom.errors import WorkloomError, nearest

T = TypeVar("T")
SHOWN = 8
"""Faults told of one file."""


def read(path: Path, kind: type[T], error: type[WorkloomError], what: str) -> T:
    """The struct in a YAML file. Raises `error` with every fault of the file; `what` says what the file should be."""
    import yaml

    try:
        text = path.read_text("utf-8")
    except OSError as fault:
        raise error(f"{what} cannot be read", where=str(path), found=fault.strerror) from None
    except UnicodeDecodeError as fault:
        raise error(f"{what} is not text in UTF-8", where=str(path), found=fault) from None
    try:
        data = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as fault:
        raise error(f"{what} is not YAML", where=str(path), found=" ".join(str(fault).split())) from None
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as fault:
        found = list(_faults(data, inspect.type_info(kind), "")) or [str(fault)]
    more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    raise error(f"{what} is malformed", where=str(path), found="\n    ".join([*found[:SHOWN], *more])) from None


def _faults(data: object, kind: inspect.Type, place: str) -> Iterator[str]:
    """Sentences about everything in `data` that does not fit, each with its place; none if it only fails as a whole."""
    kind = _chosen(data, kind)
    if isinstance(kind, inspect.StructType) and isinstance(data, dict):
        yield from _of_struct(data, kind, place)
        return
    inner: list[tuple[str, object, inspect.Type]] = []
    if isinstance(kind, inspect.DictType) and isinstance(data, dict):
        inner = [(f"{place}.{key}".lstrip("."), value, kind.value_type) for key, value in data.items()]
    elif isinstance(kind, inspect.VarTupleType | inspect.ListType) and isinstance(data, list):
        inner = [(f"{place}[{i}]", value, kind.item_type) for i, value in enumerate(data)]
    told = [fault for where, value, sort in inner for fault in _faults(value, sort, where)]
    yield from told
    if not told:
        yield from _leaf(data, kind, place)


def _of_struct(data: dict[Any, Any], kind: inspect.StructType, place: str) -> Iterator[str]:
    fields = {field.encode_name: field for field in kind.fields}
    known = [*fields, *([kind.tag_field] if kind.tag_field else [])]
    told = False
    for key, value in data.items():
        where = f"{place}.{key}".lstrip(".")
        if key in fields:
            for fault in _faults(value, fields[key].type, where):
                told = True
                yield fault
        elif key not in known:
            told = True
            close = nearest(str(key), known)
            yield f"{where}: there is no such key" + (
                f"; did you mean {close}?" if close else f" (known: {', '.join(known)})"
            )
    for name, field in fields.items():
        if field.required and name not in data:
            told = True
            yield f"{place or 'top level'}: the key {name} is missing"
    if not told:
        yield from _leaf(data, kind, place)


def _chosen(data: object, kind: inspect.Type) -> inspect.Type:
    """Of a union the struct that the data names by its tag, or the only one that could be meant."""
    if not isinstance(kind, inspect.UnionType):
        return kind
    structs = [k for k in kind.types if isinstance(k, inspect.StructType)]
    if isinstance(data, dict) and structs:
        for struct in structs:
            if struct.tag_field is not None and data.get(struct.tag_field) == struct.tag:
                return struct
        if len(structs) == 1:
            return structs[0]
    return kind


def _leaf(data: object, kind: inspect.Type, place: str) -> Iterator[str]:
    """What the decoder says of a value by itself."""
    where = place or "top level"
    tags = (
        [k.tag for k in kind.types if isinstance(k, inspect.StructType)] if isinstance(kind, inspect.UnionType) else []
    )
    field = next((k.tag_field for k in getattr(kind, "types", ()) if isinstance(k, inspect.StructType)), None)
    if isinstance(data, dict) and field is not None and data.get(field) not in tags:
        close = nearest(str(data.get(field)), [str(tag) for tag in tags])
        hint = f"; did you mean {close}?" if close and data.get(field) else ""
        yield f"{where}.{field}: expected one of {', '.join(map(str, tags))}, found {data.get(field, 'nothing')}{hint}"
        return
    try:
        msgspec.convert(data, _python_type(kind))
    except msgspec.ValidationError as fault:
        said, _, inside = str(fault).partition(" - at ")
        tail = inside.strip("`").removeprefix("$")
        yield f"{where}{tail}: {said[:1].lower()}{said[1:]}"


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
