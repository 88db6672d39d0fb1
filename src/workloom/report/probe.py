"""What probes found, as tables and charts: the same on a terminal and on a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from math import log2

from workloom.answers.probe import Cache, Decode, Prefill, Stress
from workloom.answers.probe.fit import Fit, Term
from workloom.answers.probe.middle import Middle
from workloom.answers.probe.retention import Asked, Bracket
from workloom.report.figure import Axis, Figure, Series
from workloom.report.page import Section
from workloom.report.table import Column, Table
from workloom.report.units import Cell, span, text

WIDTH = 10
"""Letters of the longest bar."""


def sections(found: Prefill | Decode | Cache | Stress) -> list[Section]:
    """Tables, charts, and what they must be read with."""
    if isinstance(found, Prefill):
        out = _prefill(found)
    elif isinstance(found, Decode):
        out = _decode(found)
    elif isinstance(found, Cache):
        out = _cache(found)
    else:
        out = _stress(found)
    remarks = [*(found.untold if isinstance(found, Prefill) else []), *found.notes]
    if remarks:
        table = Table("Read with", (Column("remark", align="left"),), tuple((words,) for words in remarks))
        out.append(Section("remarks", "Remarks", tables=(table,)))
    return out


def bar(value: float | None, most: float) -> str:
    """A bar of a length in proportion to the value."""
    return "" if not value or not most else "█" * max(1, round(WIDTH * value / most))


def between(low: float | None, high: float | None, unit: str) -> str:
    """An interval to read; `all alike` where its ends are."""
    said = span(low, high, unit)
    if said is None:
        return "–"
    return "all alike" if text(low, unit) == text(high, unit) else said


def spread(one: Middle, unit: str) -> str:
    """The interval of a median."""
    return between(one.low, one.high, unit)


def confidence(middles: Iterable[Middle]) -> str:
    """What the intervals of a table are worth."""
    levels = [each.level for each in middles if each.n]
    least = min(levels, default=0.0)
    if not levels:
        return ""
    few = "" if least >= 0.95 else ": more --repeats carry 95%"
    return f"Medians; intervals from the order of the repeats, {least:.0%} or more{few}."


# -- prefill


def _prefill(found: Prefill) -> list[Section]:
    most = max((each.tokens_per_s or 0.0 for each in found.lengths), default=0.0)
    rows = tuple(
        (
            round(each.prompt_tokens),
            each.ttft_s.value,
            spread(each.ttft_s, "s"),
            each.fitted_s,
            each.tokens_per_s,
            bar(each.tokens_per_s, most),
            f"{each.ttft_s.n}/{each.asked}" + (f", {each.failed} failed" if each.failed else ""),
        )
        for each in found.lengths
    )
    columns = (
        Column("prompt tokens"),
        Column("TTFT", "s"),
        Column("interval", align="left"),
        Column("fit", "s"),
        Column("tokens/s"),
        Column("", align="left"),
        Column("calls", align="left"),
    )
    note = confidence(each.ttft_s for each in found.lengths)
    tables = [Table("TTFT of cold prompts, one at a time", columns, rows, note)]
    if found.fit is not None:
        since = (
            "; too far to hold"
            if not found.holds_from_tokens
            else f"; holds from {text(round(found.holds_from_tokens))} tokens on"
        )
        floor = "" if found.floor_s is None else f"; below, TTFT is about {text(found.floor_s, 's')}"
        title = "TTFT = fixed + token * n + pair * n^2 / 2"
        tables.append(_terms(title, found.fit, f"{_off(found.fit)}{since}{floor}."))
    x = tuple(float(each.prompt_tokens) for each in found.lengths)
    dots = Series(
        "median",
        x,
        tuple(each.ttft_s.value for each in found.lengths),
        tuple(each.ttft_s.low for each in found.lengths),
        tuple(each.ttft_s.high for each in found.lengths),
    )
    fitted = Series("fit", x, tuple(each.fitted_s for each in found.lengths))
    figure = Figure(
        "ttft",
        "TTFT against prompt length",
        "dots",
        Axis("prompt tokens", log=True),
        Axis("TTFT", "s", log=True),
        (dots, fitted),
    )
    return [Section("prefill", "Prefill", tables=tuple(tables), figures=(figure,))]


def _off(fit: Fit) -> str:
    return f"Off by at most {fit.off:.2%} over {fit.points} medians"


_TERMS = {
    "fixed_s": "fixed",
    "prompt_token_s": "a prompt token",
    "pair_s": "a query-key pair",
    "step_s": "a step",
    "stream_s": "a stream",
    "context_token_s": "a token of context",
}


def _terms(title: str, fit: Fit, note: str) -> Table:
    columns = (Column("term", align="left"), Column("value"), Column("interval", align="left"))
    return Table(title, columns, tuple(_term(term) for term in fit.terms), note)


def _term(term: Term) -> tuple[Cell, ...]:
    """Seconds in the unit that leaves the fewest zeros, down to picoseconds."""
    scale, unit = next(
        ((s, u) for s, u in ((1.0, "s"), (1e3, "ms"), (1e6, "µs"), (1e9, "ns")) if term.value * s >= 1), (1e12, "ps")
    )
    low, high = (None if end is None else end * scale for end in (term.low, term.high))
    said = "–" if low is None or high is None else f"{low:.4g} to {high:.4g} {unit}"
    words = "not told from 0" if not term.seen else ""
    return _TERMS[term.name], f"{term.value * scale:.4g} {unit}", said + (f" ({words})" if words else "")


# -- decode


def _decode(found: Decode) -> list[Section]:
    most = max((cell.tokens_per_s.value or 0.0 for cell in found.cells), default=0.0)
    rows = tuple(
        (
            cell.batch,
            cell.prompt_tokens if cell.context_tokens is None else round(cell.context_tokens),
            cell.token_s.value,
            spread(cell.token_s, "s"),
            cell.tbc_p50_s.value,
            cell.tbc_p95_s.value,
            cell.user_tokens_per_s,
            cell.tokens_per_s.value,
            bar(cell.tokens_per_s.value, most),
        )
        for cell in sorted(found.cells, key=lambda cell: (cell.prompt_tokens, cell.batch))
    )
    whys = [f"batch {cell.batch}, prompts of {cell.prompt_tokens:,}: {cell.why}" for cell in found.cells if cell.why]
    columns = (
        Column("batch"),
        Column("context"),
        Column("a token", "s"),
        Column("interval", align="left"),
        Column("TBC p50", "s"),
        Column("p95", "s"),
        Column("tokens/s each"),
        Column("in all"),
        Column("", align="left"),
    )
    note = " ".join([confidence(cell.token_s for cell in found.cells), *(f"{why}." for why in whys)])
    tables = [Table("Decoding with all streams at once", columns, rows, note)]
    if found.fit is not None:
        title = "A token = step + stream * batch + token of context * batch * context"
        tables.append(_terms(title, found.fit, f"{_off(found.fit)}."))
    prompts = sorted({cell.prompt_tokens for cell in found.cells})
    series = []
    for prompt in prompts:
        cells = [cell for cell in found.cells if cell.prompt_tokens == prompt and cell.token_s.value is not None]
        series.append(
            Series(
                f"prompts of {prompt:,}",
                tuple(float(cell.batch) for cell in cells),
                tuple(cell.token_s.value for cell in cells),
                tuple(cell.token_s.low for cell in cells),
                tuple(cell.token_s.high for cell in cells),
            )
        )
    figure = Figure(
        "token",
        "Time of a token against batch size",
        "dots",
        Axis("streams", log=True),
        Axis("a token", "s"),
        tuple(series),
    )
    return [Section("decode", "Decode", tables=tuple(tables), figures=(figure,))]


# -- cache


def _cache(found: Cache) -> list[Section]:
    rows = tuple(
        (
            hit.prompt_tokens,
            hit.cold_s.value,
            hit.cached_s.value,
            hit.speedup.value,
            spread(hit.speedup, ""),
            hit.cached_share,
        )
        for hit in found.hits
    )
    columns = (
        Column("prompt tokens"),
        Column("TTFT cold", "s"),
        Column("TTFT cached", "s"),
        Column("speed-up"),
        Column("interval", align="left"),
        Column("found of what was seen", "share"),
    )
    table = Table("Pairs of equal length", columns, rows, confidence(hit.speedup for hit in found.hits))
    out = [Section("hits", "Cached against cold", _blocks(found), (table,))]
    if found.pressure:
        lead = f"Held for reuse: {_say(found.capacity_tokens, '', 'tokens')}."
        out.append(_survival("pressure", "Under pressure", lead, found.pressure, "tokens of others", ""))
    if found.idle:
        lead = f"Kept without use for {_say(found.ttl_s, 's', '')}."
        out.append(_survival("idle", "Over time", lead, found.idle, "idle", "s"))
    return out


def _blocks(found: Cache) -> str:
    if not found.told:
        return "The server does not say how much it found."
    size = found.block_tokens
    if size is None:
        return "The counts are too few to tell the block size."
    again = found.missed_tokens
    computed = "" if again.value is None else f" {text(again.value)} tokens seen before are computed again (median)."
    return (
        "Prefixes are found token by token." if size == 1 else f"Prefixes are found in blocks of {size}."
    ) + computed


def _say(where: Bracket | None, unit: str, noun: str) -> str:
    """A bracket in words."""
    if where is None or (where.low is None and where.high is None):
        return "cannot tell"
    noun = f" {noun}" if noun else ""
    if where.high is None:
        return f"{text(where.low, unit)}{noun} or more"
    if where.low is None:
        return f"less than {text(where.high, unit)}{noun}"
    one, two = text(where.low, unit), text(where.high, unit)
    return f"{one}{noun}" if one == two else f"{one} to {two}{noun}"


def _survival(key: str, title: str, lead: str, asked: Sequence[Asked], what: str, unit: str) -> Section:
    columns = (Column(what, unit), Column("prefixes"), Column("found", "share"), Column("", align="left"))
    rows = tuple(_group(some) for _, some in groupby(asked, key=lambda each: round(4 * log2(max(each.age, 1e-3)))))
    dots = Series("prefix", tuple(each.age for each in asked), tuple(each.kept for each in asked))
    figure = Figure(
        key, f"What is found again: {what}", "dots", Axis(what, unit, log=True), Axis("found", "share"), (dots,)
    )
    return Section(key, title, lead, (Table(f"Prefixes by age ({what})", columns, rows),), (figure,))


def _group(some: Iterable[Asked]) -> tuple[Cell, ...]:
    """Prefixes of about one age (within a fifth): how many, and what was found of them."""
    there = list(some)
    told = [each.kept for each in there if each.kept is not None]
    share = sum(told) / len(told) if told else None
    age = sum(each.age for each in there) / len(there)
    return age, len(there), share, "cannot tell" if share is None else bar(share, 1.0)


# -- stress


def _stress(found: Stress) -> list[Section]:
    most = max((level.output_tokens_per_s for level in found.levels), default=0.0)
    names = [each.figure for each in found.levels[0].figures] if found.levels else []
    rows = tuple(
        (
            level.concurrency,
            level.output_tokens_per_s,
            _half(level.low, level.output_tokens_per_s),
            level.user_tokens_per_s,
            *(each.value for each in level.figures),
            level.failed,
            bar(level.output_tokens_per_s, most),
        )
        for level in found.levels
    )
    columns = (
        Column("at once"),
        Column("tokens/s"),
        Column("±", "share"),
        Column("each"),
        *(Column(name.replace("_", " ").upper().replace(" P", " p"), "s") for name in names),
        Column("failed"),
        Column("", align="left"),
    )
    x = tuple(float(level.concurrency) for level in found.levels)
    rate = Series(
        "output",
        x,
        tuple(level.output_tokens_per_s for level in found.levels),
        tuple(level.low for level in found.levels),
        tuple(level.high for level in found.levels),
    )
    figure = Figure(
        "throughput", "Throughput against load", "dots", Axis("at once", log=True), Axis("output", "tokens/s"), (rate,)
    )
    note = "tokens/s: mean over the window, ± its 95% interval (over blocks of time)."
    table = Table("Throughput against load", columns, rows, note)
    return [Section("stress", "Stress", f"{found.workload}. {_knee(found)}", (table,), (figure,))]


def _half(low: float | None, value: float) -> float | None:
    """Half the width of an interval, as a share of the value."""
    return None if low is None or not value else 1 - low / value


def _knee(found: Stress) -> str:
    where = found.knee
    if where.at is None:
        said = f"No knee: {where.why}."
    else:
        edges = [f"above {where.low:g}" if where.low is not None else "", f"up to {where.high:g}" if where.high else ""]
        within = ", ".join(edge for edge in edges if edge)
        said = f"The knee is at {where.at:g} at once" + (f" ({within})" if within else "")
        said += ": behind it, twice the load brings less than 10% more."
    if found.bound is not None:
        said += f" Below {found.bound:.3g} at once it cannot be saturated."
    return said
