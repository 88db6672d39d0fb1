"""From a page of Prometheus text to the few figures of it that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import isfinite
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from workloom.drive.scrape.families import ADDED, FAMILIES, GAUGES, HISTOGRAMS, IN_LABELS, RANKS, terms


class Row(NamedTuple):
    """One figure: the server's name for it with the label that matters, and which engine of the page says it."""

    name: str
    engine: str
    value: float


class Page(NamedTuple):
    """What was kept of a page."""

    rows: list[Row]
    families: list[str]
    """Whose figures were there."""
    known: bool
    """Whether any line is of a known family: a server that served nobody yet may have no figure at all."""
    bad_lines: int
    """Lines of a known family that are no Prometheus text."""


class _Wanted(NamedTuple):
    """A sample name to keep."""

    family: str
    label: str | None
    highest: bool
    """Several series of it are not to be added: it is a ratio."""


@cache
def _wanted() -> dict[str, _Wanted]:
    """Sample names that are kept, counters without `_total`."""
    out = {}
    for name, family in FAMILIES.items():
        for figure in family.figures:
            for term in (term for sums in terms(name, figure) for term in sums):
                base, _, label = term.name.partition("{")
                wanted = _Wanted(name, label.partition("=")[0].rstrip("}") or None, figure in GAUGES.keys() - ADDED)
                ends = ("_sum", "_count", "_bucket") if figure in HISTOGRAMS else ("",)
                for end in ends:
                    kept = wanted._replace(label="le") if end == "_bucket" else wanted
                    if kept.label is not None or base + end not in out:
                        out[base + end] = kept
    return out


@cache
def _prefixes() -> tuple[tuple[str, str], ...]:
    """(as written, as kept), longest first: `vllm_` must not match before `ray_vllm_` was tried."""
    pairs = [(written, family.prefixes[0]) for family in FAMILIES.values() for written in family.prefixes]
    return tuple(sorted(pairs, key=lambda pair: -len(pair[0])))


def read(text: str) -> Page:
    """The known figures of a page: NaN left out, series that differ in other labels added up."""
    known = tuple(written for written, _ in _prefixes())
    lines = [line for line in text.splitlines() if line.startswith(known)]
    bad = 0
    try:
        samples = list(_parse("\n".join(lines)))
    except ValueError:  # one bad line must not cost the others
        samples = []
        for line in lines:
            try:
                samples += _parse(line)
            except ValueError:
                bad += 1
    rows, families = _kept(samples)
    return Page(rows, families, bool(samples), bad)


def _parse(text: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text + "\n"):
        yield from family.samples


def _kept(samples: list[Sample]) -> tuple[list[Row], list[str]]:
    groups: dict[tuple[str, str], dict[tuple[tuple[str, str], ...], float]] = {}
    highest: dict[str, bool] = {}
    families: dict[str, None] = {}
    for sample in samples:
        name = _canonical(sample.name)
        if name in IN_LABELS:
            for label in IN_LABELS[name]:
                _put_label(groups, f"{name}{{{label}}}", sample.labels.get(label, ""), sample.labels.get("engine", ""))
            continue
        wanted = _wanted().get(name) or _wanted().get(name := name.removesuffix("_total"))
        if wanted is None or not isfinite(sample.value) or not _is_bound(sample.labels.get("le", "0")):
            continue
        families[wanted.family] = None
        labels = dict(sample.labels)
        engine = "/".join(labels.pop(label) for label in FAMILIES[wanted.family].replica if label in labels)
        if wanted.label is not None and (said := labels.pop(wanted.label, None)) is not None:
            name = f"{name}{{{wanted.label}={_bound(said) if wanted.label == 'le' else said}}}"
        rest = tuple(sorted((label, value) for label, value in labels.items() if label not in RANKS))
        series = groups.setdefault((name, engine), {})
        series[rest] = max(sample.value, series.get(rest, sample.value))
        highest[name] = wanted.highest
    rows = [Row(name, engine, _one(series, highest.get(name, True))) for (name, engine), series in groups.items()]
    return rows, list(families)


def _put_label(
    groups: dict[tuple[str, str], dict[tuple[tuple[str, str], ...], float]], name: str, said: str, engine: str
) -> None:
    if said.isdecimal():
        groups[name, engine] = {(): float(said)}


def _one(series: dict[tuple[tuple[str, str], ...], float], highest: bool) -> float:
    """One value of all series of a name. SGLang says a queue as a whole and, beside it, by `priority`."""
    whole = [value for rest, value in series.items() if not dict(rest).get("priority")]
    values = whole or list(series.values())
    return max(values) if highest else sum(values)


def _canonical(name: str) -> str:
    for written, kept in _prefixes():
        if name.startswith(written):
            return kept + name[len(written) :]
    return name


def _is_bound(le: str) -> bool:
    try:
        return float(le) == float(le)
    except ValueError:
        return False


def _bound(le: str) -> str:
    return f"{float(le):g}"
