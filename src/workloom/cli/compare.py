"""`workloom compare`."""

from __future__ import annotations

import sys
from collections.abc import Container
from typing import Literal

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workloom.answers.compare import Comparison, compare, open_side
from workloom.answers.compare.compare import OFTEN, Row
from workloom.answers.compare.figures import every, named
from workloom.answers.compare.gate import Held, gates
from workloom.answers.compare.manifests import Change, folded
from workloom.answers.compare.movers import Moved, Mover
from workloom.answers.slo import EXIT_CODES
from workloom.cli.wide import wide
from workloom.errors import UsageError
from workloom.metrics.estimate import Estimate
from workloom.report.units import span
from workloom.report.units import text as readable

CHANGES = 24
"""Lines of settings that differ, at most; --all prints all."""
KINDS = 8
"""Kinds of calls that moved, at most."""
STYLES = {"better": "green", "worse": "red", "fail": "red", "pass": "green"}


def comparison(
    a: str,
    b: str,
    figure: list[str],
    gate: list[str],
    everything: bool,
    pairing: Literal["auto", "paired", "unpaired"],
    same: float,
    strict: bool,
    seed: int,
    json: bool,
) -> None:
    """Compare two runs (or sets of them), print it, and end as the gates say."""
    if figure and everything:
        raise UsageError("--all is all figures", expected="--figure or --all", found="both")
    wanted = named(figure) if figure else every() if everything else None
    asked = gates(gate)
    found = compare(open_side(a), open_side(b), wanted, gates=asked, pairing=pairing, same=same, seed=seed)
    if json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    else:
        show(found, wide(), everything=everything)
    _end(found.gates, strict)


def _end(held: list[Held], strict: bool) -> None:
    """The exit code that the gates ask for: the worst of their verdicts."""
    verdicts = {each.verdict for each in held}
    sys.stdout.flush()
    if "fail" in verdicts or (strict and "not enough data" in verdicts):
        sys.exit(EXIT_CODES["fail"])
    if "not enough data" in verdicts:
        sys.exit(EXIT_CODES["not enough data"])


def show(found: Comparison, out: Console, *, everything: bool = False) -> None:
    """A comparison as tables."""
    out.print(Text(f"A  {_side(found.a, found.runs_a)}\nB  {_side(found.b, found.runs_b)}"))
    out.print(Text(_pairing(found)))
    for warning in found.warnings:
        out.print(Text(f"not fair: {warning}", style="yellow"))
    _print_changes(found.changes if everything else folded(found.changes), out, everything=everything)
    out.print(_rows(found))
    _print_chance(found, out)
    if found.calls is not None:
        _print_calls(found, out)
    if found.gates:
        out.print(_gates(found.gates))
        for each in found.gates:
            if each.why:
                out.print(Text(f"{each.gate}: {each.why}", style="dim"))


def _side(name: str, runs: int) -> str:
    return name if runs == 1 else f"{name} ({runs} runs)"


def _pairing(found: Comparison) -> str:
    how = found.pairing
    said = f"{how.kind}: {how.why}"
    if how.paired:
        said += f"; {how.sessions_both:,} sessions and {how.calls_both:,} calls in both"
        for only, letter in ((how.calls_only_a, "A"), (how.calls_only_b, "B")):
            said += f", {only:,} in {letter} only" if only else ""
    if found.unit == "runs":
        said += "; intervals from the spread between runs"
    return said


def _print_changes(changed: list[Change], out: Console, *, everything: bool) -> None:
    most = len(changed) if everything else CHANGES
    if not changed:
        out.print(Text("nothing differs in the configurations\n"))
        return
    table = _table("what differs", "A", "B")
    for change in changed[:most]:
        table.add_row(Text(readable(change.name)), *(Text(_cut(value)) for value in (change.a, change.b)))
    out.print(table)
    if len(changed) > most:
        out.print(Text(f"and {len(changed) - most} settings more: --all shows them", style="dim"))
    out.print()


def _cut(value: str | None, width: int = 60) -> str:
    if value is None:
        return "–"
    value = readable(value)
    return value if len(value) <= width else value[: width - 1] + "…"


def _rows(found: Comparison) -> Table:
    table = _table("figure", "A", "B", "B / A", "B - A", "verdict", right=range(1, 5))
    for row in found.rows:
        if _unknown(row):
            continue
        values = _value(row.a, row.difference.a, row.unit), _value(row.b, row.difference.b, row.unit)
        cells = (*values, _ratio(row), _difference(row))
        verdict = Text(_verdict(row, found.same), style=STYLES.get(row.verdict, ""))
        if row.difference.p_value is not None and row.verdict != "identical":
            verdict.append(f"\np {row.difference.p_value:.2g}", style="dim")
        table.add_row(Text(row.figure), *map(Text, cells), verdict)
    return table


def _value(estimate: Estimate, compared: float | None, unit: str) -> str:
    """A value and, below it, its interval; of too few values to stand by itself the one that was compared."""
    value = compared if estimate.value is None else estimate.value
    return "\n".join([readable(value, unit), *_span(estimate.low, estimate.high, unit)])


def _ratio(row: Row) -> str:
    found = row.difference
    if row.verdict == "identical" or found.ratio is None:
        return "–"
    return "\n".join([f"{found.ratio:.3g}".replace("inf", "∞"), *_span(found.ratio_low, found.ratio_high, "")])


def _difference(row: Row) -> str:
    found = row.difference
    if row.verdict == "identical" or found.difference is None:
        return "–"
    return "\n".join([_signed(found.difference, row.unit), *_points(_span(found.low, found.high, row.unit))])


def _unknown(row: Row) -> bool:
    """A figure that neither run has: no limits for goodput, no price for costs, no tasks."""
    return row.a.value is None and row.b.value is None and not row.a.values and not row.b.values


def _points(cells: list[str]) -> list[str]:
    return [cell.replace("%", " pp") for cell in cells]


def _span(low: float | None, high: float | None, unit: str) -> list[str]:
    """An interval; none where there is none."""
    said = span(low, high, unit, "..")
    return [] if said is None else [said]


def _signed(value: float, unit: str) -> str:
    (said,) = _points([readable(value, unit)])
    return ("+" if value > 0 else "") + said


def _verdict(row: Row, same: float) -> str:
    if row.verdict == "same":
        return f"same within {100 * same:.3g}%"
    if row.verdict in ("better", "worse", "higher", "lower"):
        return row.verdict + ("" if row.holds else "?") + (" (test)" if row.by_test else "")
    return row.verdict


def _print_chance(found: Comparison, out: Console) -> None:
    """How many of so many figures differ by chance, and which still do when that is reckoned with."""
    if any("?" in _verdict(row, found.same) for row in found.rows):
        by_chance = found.looked_at * OFTEN
        out.print(
            Text(
                f"? of {found.looked_at} figures about {by_chance:.1f} differ by chance at the 5 % level; with that "
                "reckoned (Holm), this one may be one of them",
                style="dim",
            )
        )
    unclear = [row for row in found.rows if row.why and not _unknown(row)]
    for verdict, why in dict.fromkeys((row.verdict, row.why) for row in unclear):
        names = _first([row.figure for row in unclear if (row.verdict, row.why) == (verdict, why)])
        out.print(Text(f"{verdict} ({names}): {why}", style="dim"))
    unknown = [row.figure for row in found.rows if _unknown(row)]
    if unknown:
        out.print(Text(f"{len(unknown)} figures that neither has: {_first(unknown)}", style="dim"))
    out.print()


def _first(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _print_calls(found: Comparison, out: Console) -> None:
    calls = found.calls
    assert calls is not None
    if calls.went_wrong or calls.went_well:
        out.print(Text(f"{calls.went_wrong:,} calls failed in B only, {calls.went_well:,} in A only"))
    if not calls.moved:
        out.print(Text(f"no call of the {calls.calls:,} in both went well in both"))
        return
    if not any(moved.slower_share or moved.faster_share for moved in calls.moved):
        of = f"of the {calls.calls:,} in both" if not calls.went_wrong + calls.went_well else "that went well in both"
        out.print(Text(f"no call {of} moved by more than {readable(found.same, 'share')}"))
        return
    table = _table("each call, B / A", "of", "calls", "median ratio", "slower", "faster", "in all", right=range(2, 7))
    for figure in dict.fromkeys(moved.figure for moved in calls.moved):
        for moved in [moved for moved in calls.moved if moved.figure == figure][: KINDS + 1]:
            table.add_row(*map(Text, _moved(moved)))
    out.print(table)
    if calls.most:
        most = _table("moved most (E2E)", "role", "A", "B", right=(2, 3))
        for mover in calls.most:
            times = [Text(readable(seconds, "s")) for seconds in (mover.a_s, mover.b_s)]
            most.add_row(Text(_mover(mover)), Text(mover.role), *times)
        out.print(most)


def _moved(moved: Moved) -> tuple[str, ...]:
    ratio = f"{moved.ratio_p50:.3f}"
    if moved.low is not None and moved.high is not None:
        ratio += f" ({moved.low:.3f} to {moved.high:.3f})"
    shares = readable(moved.slower_share, "share"), readable(moved.faster_share, "share")
    return moved.figure, readable(moved.of), f"{moved.calls:,}", ratio, *shares, _signed(moved.total_s, "s")


def _mover(mover: Mover) -> str:
    named = f"{mover.session} {mover.call}" if mover.call else f"call {mover.ordinal}"
    return readable(f"{mover.instance}: {named}")


def _gates(held: list[Held]) -> Table:
    table = _table("gate", "moved to the worse side", "verdict", right=(1,))
    for each in held:
        table.add_row(Text(each.gate), Text(_moved_by(each)), Text(each.verdict, style=STYLES.get(each.verdict, "")))
    return table


def _moved_by(each: Held) -> str:
    def say(value: float | None) -> str:
        if value is None:
            return "–"
        return f"{value:+.1%}" if each.relative else f"{value:+.4g}"

    return say(each.moved) if each.low is None else f"{say(each.moved)} ({say(each.low)} to {say(each.high)})"


def _table(*columns: str, right: Container[int] = ()) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in right else "left", overflow="fold", no_wrap=i == 0)
    return table
