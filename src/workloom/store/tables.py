"""Records as Arrow tables and Parquet files: one column for each field of the struct, its units in its name.

`chunks` and `after` are lists of structs, one for each chunk run and each edge. Tables are written and read in batches
of bounded size; the same records in the same order make the same bytes.
"""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from msgspec import Struct, structs

from workloom.errors import StoreError
from workloom.records import CallRecord, ChunkRun, Dependency, ServerSample, SessionRecord

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R", bound=Struct)

ROWS = 16_384
"""Rows in a batch (and in a row group), at most."""
BYTES = 4 << 20
"""Bytes of encoded records in a batch, at most (one record more)."""

UNFIT = "`workloom show` opens the run without that record, and says so"
LOST = "put it back from a copy, or run again: the command is `argv` in manifest.json"
"""What to do about a record that no table can hold, and about a file of a run that is gone or damaged."""

NAMES: dict[type[Struct], str] = {CallRecord: "calls", SessionRecord: "sessions", ServerSample: "server"}
"""The tables of a run."""

NESTED: dict[str, type[Struct]] = {"chunks": ChunkRun, "after": Dependency}
"""Columns that are lists of structs."""


def schema(kind: type[Struct]) -> pa.Schema:
    """The Arrow schema of a record."""
    import pyarrow as pa

    hints = typing.get_type_hints(kind)
    return pa.schema([_field(field.name, hints[field.name]) for field in structs.fields(kind)])


def _field(name: str, hint: Any) -> pa.Field:
    import pyarrow as pa

    optional = get_origin(hint) in (types.UnionType, typing.Union)
    if optional:
        (hint,) = (arg for arg in get_args(hint) if arg is not type(None))
    return pa.field(name, _type(hint), nullable=optional)


def _type(hint: Any) -> pa.DataType:
    import pyarrow as pa

    if get_origin(hint) is list:
        return pa.list_(pa.field("item", _type(get_args(hint)[0]), nullable=False))
    if hint in NESTED.values():
        return pa.struct([_field(name, kind) for name, kind in typing.get_type_hints(hint).items()])
    if get_origin(hint) is Literal:
        return pa.string()
    return {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}[hint]


def to_batch(kind: type[R], records: list[R]) -> pa.RecordBatch:
    """Records as columns; raises StoreError when a value does not fit into its column."""
    import pyarrow as pa

    shape = schema(kind)
    return pa.RecordBatch.from_arrays([_column(kind, records, field) for field in shape], schema=shape)


def _column(kind: type[R], records: list[R], field: pa.Field) -> pa.Array:
    import pyarrow as pa

    values = [getattr(record, field.name) for record in records]
    try:
        return _nested_column(values, field.type) if field.name in NESTED else pa.array(values, type=field.type)
    except (AttributeError, OverflowError, TypeError, ValueError, pa.ArrowException) as error:
        raise StoreError(
            f"a record does not fit into its table: {error}",
            where=f"table {NAMES[kind]}, column {field.name}",
            expected=str(field.type),
            hint=UNFIT,
        ) from error


def _nested_column(lists: list[list[Any]], kind: pa.DataType) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    offsets = np.zeros(len(lists) + 1, dtype=np.int32)
    np.cumsum([len(each) for each in lists], out=offsets[1:])
    fields = list(kind.value_type)
    every = [struct for each in lists for struct in each]
    columns = [[getattr(struct, field.name) for struct in every] for field in fields]
    values = pa.StructArray.from_arrays(
        [pa.array(column, type=field.type) for column, field in zip(columns, fields, strict=True)], fields=fields
    )
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind)


def from_batch(kind: type[R], batch: pa.RecordBatch) -> Iterator[R]:
    """Columns as records; a column the table does not have (an older run) keeps its default."""
    names = [field.name for field in structs.fields(kind) if field.name in batch.schema.names]
    columns = [_nested_lists(n, batch.column(n)) if n in NESTED else batch.column(n).to_pylist() for n in names]
    for row in zip(*columns, strict=True):
        yield kind(**dict(zip(names, row, strict=True)))


def _nested_lists(name: str, column: pa.ListArray) -> Iterator[list[Any]]:
    import pyarrow.compute as pc

    kind, values = NESTED[name], column.flatten()
    every = map(kind, *(values.field(i).to_pylist() for i in range(len(kind.__struct_fields__))))
    for count in pc.list_value_length(column).to_pylist():
        yield [next(every) for _ in range(count)]


def write(path: Path, kind: type[Struct], batches: Iterable[pa.RecordBatch]) -> int:
    """Write a table whole or not at all; returns its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shape = schema(kind)
    part = path.with_name(path.name + ".part")
    rows = 0
    try:
        strings = [field.name for field in shape if field.type == pa.string()]
        with pq.ParquetWriter(part, shape, compression="zstd", use_dictionary=strings) as writer:
            for batch in batches:
                writer.write_batch(batch)
                rows += batch.num_rows
        sync(part)
        os.replace(part, path)
    except StoreError:
        part.unlink(missing_ok=True)
        raise
    except (OSError, pa.ArrowException) as error:
        part.unlink(missing_ok=True)
        raise StoreError(
            f"a table could not be written: {error}", where=str(path), hint="make room on the disk; nothing is lost"
        ) from error
    return rows


def read(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The batches of a table; with `columns` only those."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            known = set(file.schema_arrow.names)
            wanted = None if columns is None else [name for name in columns if name in known]
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns=wanted).combine_chunks().to_batches()
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"a table of the run cannot be read: {error}", where=str(path), hint=LOST) from error


def sync(path: Path) -> None:
    """Return when a file or directory is on disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
