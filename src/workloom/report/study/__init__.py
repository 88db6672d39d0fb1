"""The study of one workload or several side by side: five questions with their answers, and what else is known.

characterizations -> study() -> sections of tables and figures -> page (HTML), terminal
one module per section; words make sentences, parts make tables and curves
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from workloom.report.page import Section, page
from workloom.report.study import (
    arrivals,
    concurrency,
    context,
    instability,
    notes,
    reuse,
    roles,
    shapes,
    sizes,
    timing,
    waits,
    workflow,
)
from workloom.report.study.words import Found, counted, listed, said

QUESTIONS = (shapes, timing, reuse, instability, roles)
MORE = (workflow, sizes, waits, context, arrivals, concurrency)


def study(found: Found) -> list[Section]:
    """All sections of the report: what to read first, what to look up last."""
    chapters = [module.section(found) for module in (*QUESTIONS, *MORE)]
    return [notes.overview(found), *chapters, _numbers(found, chapters), notes.section(found)]


def _numbers(found: Found, chapters: Sequence[Section]) -> Section:
    """The tables that charts and leads are made from."""
    tables = [
        replace(table, title=f"{chapter.title}: {_lower(table.title)}")
        for chapter, module in zip(chapters, (*QUESTIONS, *MORE), strict=True)
        for table in module.numbers(found)
    ]
    about = "Distributions and totals behind the sections above. Every chart has its own numbers under it."
    return Section("numbers", "All numbers", about, tuple(tables))


def brief(found: Found) -> list[Section]:
    """The traces and the key numbers of each question, for a terminal."""
    first = notes.traces(found)
    tables = [(first.title, first)]
    for module in QUESTIONS:
        table = module.key(found)
        tables.append((f"{module.TITLE}: {_lower(table.title)}", table))
    return [Section(title, title, "", (replace(table, title="", note=""),)) for title, table in tables]


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]


def report(found: Found) -> str:
    """The page: equal for equal numbers, to the byte."""
    return page(f"Workload study: {listed([c.label for c in found])}", _subtitle(found), study(found))


def _subtitle(found: Found) -> str:
    if len(found) > 1:
        return f"{len(found)} workloads side by side"
    told = found[0].report
    return ", ".join(
        (
            counted(told.sessions, "session"),
            counted(told.calls, "call"),
            f"{said(told.prompt_tokens, 'tokens')} prompt tokens",
            f"{said(told.output_tokens, 'tokens')} output tokens",
        )
    )
