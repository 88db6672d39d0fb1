"""How well the figures of a run are known, whether it had settled, and where the time went, on a terminal."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from workloom.metrics.fairness import Spread
from workloom.metrics.summary import Summary
from workloom.metrics.tables import table as estimates_table
from workloom.metrics.text import duration
from workloom.metrics.uncertainty.stationary import IN_FLIGHT, Stationarity
from workloom.metrics.workflow.explain import table as workflow_tables


def answers(summary: Summary) -> list[RenderableType]:
    """How well the main figures are known, where the time went, and whether sessions were served alike."""
    out: list[RenderableType] = []
    if summary.estimates:
        out += [Text(), estimates_table(summary.estimates, "How well the figures are known", values=False)]
    if summary.stationarity:
        out.append(_settled(summary.stationarity))
    if summary.fairness:
        out.append(Text(_fairness(summary.fairness), style="dim"))
    if summary.workflow is not None and (told := workflow_tables(summary.workflow)):
        out += [Text(), *told]
    return [*out, Text()] if out else out


def _settled(found: list[Stationarity]) -> Text:
    """Whether the run had settled; what had not, and from when on it had."""
    names = {"ttft_s": "TTFT", "e2e_s": "E2E", IN_FLIGHT: "calls in flight"}
    by: dict[str, list[str]] = {}
    for each in found:
        by.setdefault(each.verdict, []).append(names[each.metric])
    said = [f"{' and '.join(by['flat'])} settled"] if "flat" in by else []
    for each in found:
        began = "" if each.change is None else f" (it began {each.change:+.0%})"
        if each.verdict == "ramp":
            said.append(f"{names[each.metric]} settled after {duration(each.cut_s)}{began}")
        elif each.verdict == "drift":
            said.append(f"{names[each.metric]} never settled{began}")
    if unknown := by.get("not enough data"):
        said.append(f"not enough data to say of {' and '.join(unknown)}")
    text = f"Over the window: {'; '.join(said)}."
    if cuts := [each.cut_s for each in found if each.verdict == "ramp"]:
        text += f" Without its beginning: workloom metrics RUN --skip {max(cuts):.0f}"
    return Text(text, style="yellow" if {"ramp", "drift"} & set(by) else "dim")


def _fairness(spreads: list[Spread]) -> str:
    """How far the sessions that were served worst are from the middle."""
    names = {"session_ttft_s": "mean TTFT", "slowdown": "slowdown"}
    said = []
    for each in spreads:
        if each.ratio is not None:
            known = "" if each.low is None or each.high is None else f" ({each.low:.2f} to {each.high:.2f})"
            said.append(f"p95 / p50 of {names[each.metric]} {each.ratio:.2f}{known}")
    return f"Spread over {spreads[0].sessions:,} sessions: {', '.join(said)}." if said else ""
