"""Native: every field of every noun."""

from __future__ import annotations

import msgspec

from samples import Plant
from workloom.session import Call, Edge, Header, Inherit, Part, Recorded, Session, Span
from workloom.traces.native import encode_header


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    recorded = Recorded(0.0, 0.5, 1.0, 10, "ok", True, (text("estimated"),), text("answer"))
    part = Part("tool", 5, name("part"), 0.5, None, text("part"))
    first = Call(
        text("call"),
        7,
        (),
        name("agent"),
        name("model"),
        None,
        (Span(text("span"), 9, "trace"),),
        (part,),
        2,
        5,
        recorded,
    )
    report = Part("report", 4, None, None, text("call"), text("report"))
    second = Call(
        "b", 3, (Edge(text("call"), 1.0, "tool"),), f"{name('type')}:{text('agent')}", "", Inherit(text("call"), 6),
        (Span(text("mine"), 3),), (report,),
    )  # fmt: skip
    session = Session(text("id"), (first, second), 5.0, text("user"), name("workflow"), text("origin"))
    header = Header(source=text("source"), block_tokens=None, common_clock=True)
    return {"t.jsonl": encode_header(header) + msgspec.json.encode(session) + b"\n"}
