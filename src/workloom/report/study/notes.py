"""What was studied, and all that was assumed on the way."""

from __future__ import annotations

from collections.abc import Iterator

from workloom.answers.characterize import Characterization
from workloom.model.describe import notes
from workloom.report.page import Section
from workloom.report.study import curves, instability, reuse, roles, shapes, timing
from workloom.report.study.parts import Row, compare, tidy
from workloom.report.study.words import PEOPLE, Found, said, side
from workloom.report.table import Column, Table
from workloom.report.units import Cell


def overview(found: Found) -> Section:
    """The traces, and the five questions with their answers."""
    return Section("traces", "In short", "", (_answers(found), traces(found)))


def traces(found: Found) -> Table:
    """How large every trace is."""
    rows = [
        Row("format", lambda c: c.report.format),
        Row("sessions", lambda c: c.report.sessions),
        Row("calls", lambda c: c.report.calls),
        Row("prompt tokens", lambda c: c.report.prompt_tokens),
        Row("output tokens", lambda c: c.report.output_tokens),
        Row("prompt of a call, p50", lambda c: c.sizes.prompt_tokens.per_call.p50, "tokens"),
        Row("fresh text of a call, p50", lambda c: c.sizes.fresh_tokens.per_call.p50, "tokens"),
        Row("output of a call, p50", lambda c: c.sizes.output_tokens.per_call.p50, "tokens"),
    ]
    return compare("Traces", found, rows)


def _answers(found: Found) -> Table:
    columns = (Column("question", align="left"), Column("answer", align="left"))
    rows = (
        ("What do the graphs of calls look like?", shapes.answer(found)),
        ("Where does the time go?", timing.answer(found)),
        ("How much can be reused?", reuse.answer(found)),
        ("How stable are sessions?", instability.answer(found)),
        ("Which roles and models dominate?", roles.answer(found)),
    )
    return Table("Five questions", columns, rows)


def section(found: Found) -> Section:
    """What to keep in mind."""
    return Section(
        "assumptions",
        "Assumptions and limits",
        "What the numbers rest on. Everything the readers of the traces inferred, assumed or left out is listed.",
        (_general(found), *_readers(found)),
    )


def _general(found: Found) -> Table:
    pace, prices = found[0].pace, found[0].roles.prices
    timed = side(found, lambda c: c.timing.timed_share, "share")
    plans = "; ".join(c.plan if len(found) == 1 else f"{c.label}: {c.plan}" for c in found)
    waits = curves.waits(found[0].reuse.capacity)
    rows = (
        ("waits", PEOPLE),
        ("times of calls", f"The trace's own for {timed or 'none'} of the calls."),
        (
            "pace",
            f"Elsewhere prefill at {said(pace.prefill_tokens_per_s)} tokens/s and decode at "
            f"{said(pace.decode_tokens_per_s)} tokens/s: round figures for a 70B model on current hardware.",
        ),
        ("plan of the curves", f"{plans}. Hit rates against capacity: {waits}; against time: waits as recorded."),
        ("ideal hit rates", "Calls in the order of the trace, session after session. Sessions share named texts only."),
        (
            "prices",
            f"{said(prices.computed)} for a computed prompt token, {said(prices.cached)} for a cached one, "
            f"{said(prices.output)} for an output token; an infinite cache says which are cached.",
        ),
        ("critical path", "Every second between the first start and the last end of a session is counted once."),
    )
    return Table("Of this study", (Column("about", align="left"), Column("what holds", align="left")), rows)


def _readers(found: Found) -> tuple[Table, ...]:
    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        yield from notes(c.report)

    columns = [Column("note", align="left"), Column("what the reader says", align="left")]
    return tidy("Of the traces", found, columns, rows)
