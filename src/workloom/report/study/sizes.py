"""How large calls are, and what their fresh text is made of."""

from __future__ import annotations

from collections.abc import Iterator

from workloom.answers.characterize import Characterization
from workloom.model.distribution import Distribution
from workloom.model.families import SIMPLE
from workloom.model.families.choose import Fit
from workloom.report.figure import Axis, Figure, Series
from workloom.report.page import Section
from workloom.report.study.parts import Figures, Measure, cdf, curve, medians, spread, tidy, worth
from workloom.report.study.words import Found, each, lead, listed, said, say, side
from workloom.report.table import Column, Table
from workloom.report.units import Cell
from workloom.session import PartKind

KIND_NAMES: dict[PartKind, str] = {
    "user": "user messages",
    "tool": "tool results",
    "report": "reports of subagents",
    "summary": "summaries",
    "answer": "answers told again",
    "injected": "injected text",
    "definition": "definitions",
}
TOOLS = 12
"""Tools that a chart shows."""
TOKENS = Axis("tokens", "tokens", log=True)


def section(found: Found) -> Section:
    """How large calls are."""
    return Section(
        "sizes",
        "Sizes of calls",
        lead(answer(found), _outputs(found), _fresh(found) if len(found) == 1 else ""),
        (*_distributions(found), *_laws(found)),
        (
            *_figures(found),
            *_kinds_figure(found),
            *(f for place, c in enumerate(found) for f in _tools_figure(c, place)),
        ),
    )


def _laws(found: Found) -> tuple[Table, ...]:
    """Which family describes each sample best, of all and of those with one component."""
    names = {"added": "added to the prompt, answer included", "fresh": "fresh text", "output": "output", "wait": "wait"}
    rows: list[tuple[Cell, ...]] = []
    for c in found:
        for law in c.laws:
            if law.choice is not None:
                fits = law.choice.fits
                simple = next((fit for fit in fits if fit.name in SIMPLE), None)
                trace = (c.label,) if len(found) > 1 else ()
                told = (fits[0].ks, fits[1].name if len(fits) > 1 else None)
                rows.append((*trace, names[law.sample], law.choice.n, _family(fits[0]), *told, _family(simple)))
    columns = [Column("trace", align="left")] if len(found) > 1 else []
    columns += [Column("sample", align="left"), Column("n"), Column("best by AIC", align="left"), Column("KS")]
    columns += [Column("next", align="left"), Column("best of one component", align="left")]
    note = (
        "Maximum likelihood; tokens and seconds. Added: beyond the previous prompt, in calls that keep all of the "
        "context before. A spike with a tail has five parameters; BIC, which asks more of those, and all families "
        "are in --json (laws)."
    )
    return (Table("Families", tuple(columns), tuple(rows), note),) if rows else ()


def _family(fit: Fit | None) -> str | None:
    """A family with its parameters."""
    if fit is None:
        return None
    family = fit.family
    names = [name for name in family.__struct_fields__ if name != "zeros"]
    told = [f"{name.replace('_', ' ')} {getattr(family, name):.3g}" for name in names]
    return f"{fit.name}: {', '.join(told)}"


def prompt(c: Characterization) -> Distribution:
    """Prompt tokens of each call."""
    return c.sizes.prompt_tokens.per_call


def fresh(c: Characterization) -> Distribution:
    """Fresh tokens of each call."""
    return c.sizes.fresh_tokens.per_call


def computed(c: Characterization) -> Distribution:
    """Prompt tokens of each call that an infinite cache does not hold."""
    return c.sizes.computed_tokens.per_call


def output(c: Characterization) -> Distribution:
    """Output tokens of each call."""
    return c.sizes.output_tokens.per_call


def answer(found: Found) -> str:
    """Median prompt, and what of a prompt is new."""
    prompts = side(found, lambda c: prompt(c).p50, "tokens", "token")
    new = side(found, lambda c: fresh(c).p50, "tokens")
    return say("The median prompt has ", prompts, "; the median fresh text ", new, ".")


def _outputs(found: Found) -> str:
    return say("The median answer has ", side(found, lambda c: output(c).p50, "tokens", "token"), ".")


def _fresh(found: Found) -> str:
    def told(c: Characterization) -> str:
        kinds = [(KIND_NAMES[kind.kind], kind.share or 0.0) for kind in c.sizes.kinds]
        return listed([f"{name} {said(share, 'share')}" for name, share in kinds[:3] if share >= 0.01])

    return say("Fresh text is ", each(found, told), ".")


def _distributions(found: Found) -> tuple[Table, ...]:
    measures = [
        Measure("prompt", prompt),
        Measure("fresh", fresh),
        Measure("computed", computed),
        Measure("output", output),
    ]
    if any(c.sizes.reasoning_tokens.total for c in found):
        measures.append(Measure("reasoning, within the output", lambda c: c.sizes.reasoning_tokens.per_call))
    note = (
        "Fresh: in parts of the call's own, neither inherited nor a named text. Computed: what an infinite cache of "
        "prompts and answers does not hold: fresh text, and named texts where they come first."
    )
    return spread("Tokens per call", found, measures, note=note)


def numbers(found: Found) -> tuple[Table, ...]:
    """Kinds of fresh text, and tools."""
    return (*_kinds(found), *_tools(found))


def _kinds(found: Found) -> tuple[Table, ...]:
    columns = [Column("kind", align="left"), Column("parts"), Column("tokens"), Column("share", "share")]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        for kind in c.sizes.kinds:
            yield KIND_NAMES[kind.kind], kind.parts, kind.tokens, kind.share

    return tidy("What fresh text is made of", found, columns, rows)


def _tools(found: Found) -> tuple[Table, ...]:
    columns = [
        Column("tool", align="left"),
        Column("results"),
        Column("tokens"),
        Column("ran for", "s"),
        Column("timed"),
    ]

    def rows(c: Characterization) -> Iterator[tuple[Cell, ...]]:
        rest = () if c.sizes.other_tools is None else (c.sizes.other_tools,)
        for tool in (*c.sizes.tools, *rest):
            seconds = tool.seconds if tool.timed else None
            yield tool.name or "(not named)", tool.results, tool.tokens, seconds, tool.timed

    note = "Ran for: in all, of the results that tell how long their tool ran (timed)."
    return tidy("Tools", found, columns, rows, note)


def _figures(found: Found) -> Figures:
    if len(found) == 1:
        return _of_one(found[0])

    def one(key: str, title: str, question: str, measure: Measure) -> Figures:
        axis = Axis(measure.name, "tokens", log=True)
        return cdf(key, title, axis, found, measure.of, share="calls", question=question)

    return (
        *one("prompt", "Prompts", "How long are prompts?", Measure("prompt", prompt)),
        *one("fresh", "Fresh text", "How much of a prompt is new?", Measure("fresh text", fresh)),
        *one(
            "computed", "Computed tokens", "What must be computed with the best cache?", Measure("computed", computed)
        ),
        *one("output", "Outputs", "How long are answers?", Measure("output", output)),
    )


def _of_one(c: Characterization) -> Figures:
    """All sizes in one chart."""
    told = {"prompt": prompt(c), "computed": computed(c), "fresh": fresh(c), "output": output(c)}
    shown = {name: d for name, d in told.items() if worth(d)}
    if not shown:
        return ()
    series = tuple(curve(d, name) for name, d in shown.items())
    note = f"{medians(shown, 'tokens')} Values of 0 count at the left edge."
    y = Axis("share of calls", "share")
    what = "How large are calls, and how much of them is new?"
    return (Figure("sizes", "Tokens per call", "cdf", TOKENS, y, series, note, what),)


def _kinds_figure(found: Found) -> Figures:
    kinds = [
        kind for kind in KIND_NAMES if any(one.kind == kind and one.tokens for c in found for one in c.sizes.kinds)
    ]
    if len(kinds) < 2:
        return ()
    names = tuple(c.label for c in found)

    def share(c: Characterization, kind: PartKind) -> float:
        return sum(one.share or 0.0 for one in c.sizes.kinds if one.kind == kind)

    series = tuple(Series(KIND_NAMES[kind], names, tuple(share(c, kind) for c in found)) for kind in kinds)
    y = Axis("share of fresh tokens", "share")
    note = "Tokens of fresh text, by kind of part."
    return (Figure("kinds", "Fresh text by kind", "stack", Axis("trace"), y, series, note, "What is new text?"),)


def _tools_figure(c: Characterization, place: int) -> Figures:
    """The tools with most tokens, where tools have names."""
    tools = [tool for tool in c.sizes.tools if tool.name][:TOOLS]
    if len(tools) < 2:
        return ()
    series = Series("tokens", tuple(tool.name for tool in tools), tuple(float(tool.tokens) for tool in tools))
    more = c.sizes.tool_names - len(tools)
    note = f"The {len(tools)} tools with most tokens, of {c.sizes.tool_names}." if more else "All tools of the trace."
    x, y = Axis("tool"), Axis("tokens of results", "tokens")
    title = f"Results by tool: {c.label}"
    return (Figure(f"tools-{place}", title, "bar", x, y, (series,), note, "Which tools fill the context?"),)
