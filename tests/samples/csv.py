"""The flat call table: every column, short forms and JSON, and a column it does not know."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from samples import Plant
from workloom.session import Call, Edge, Header, Inherit, Part, Recorded, Session, Span
from workloom.traces.csv_table import write
from workloom.traces.reading import Report


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    first = Call(
        text("call"), 7, (), name("agent"), name("model"), None, (Span(text("span"), 9, "trace"), Span("mine", 3)),
        (Part("user", 20), Part("tool", 5, name("part"), 0.5, None, text("part"))), 2, 5,
        Recorded(0.0, 0.5, 1.0, 10, "aborted", True, (text("estimated"), "output_tokens"), text("answer\n,\"")),
    )  # fmt: skip
    second = Call(
        "b", 3, (Edge(text("call"), 1.0, "tool"),), f"{name('type')}:{text('agent')}", "", Inherit(text("call"), 6),
        (Span("mine", 3),), (Part("report", 4, None, None, text("call"), text("report")),),
    )  # fmt: skip
    short = Call("c", 1, (Edge("b", 0.25, "human"),), inherit=Inherit("b"), fresh=(Part("user", 8),))
    one = Session(text("id"), (first, second, short), 5.0, text("user"), name("workflow"), text("origin"))
    other = Session(text("other id"), (Call("c0", 0, fresh=(Part("user", 8),)),), 7.5)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write(path, Header(common_clock=True, block_tokens=64), [one, other], Report())
        head, *rows = path.read_bytes().splitlines(keepends=True)
    note = f',"{text("note")}, {text("more")}"\n'.encode()
    return {"table.csv": head.replace(b"\n", b",note\n") + b"".join(row.replace(b"\n", note) for row in rows)}
