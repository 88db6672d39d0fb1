"""The numbers of a run with what they were asked for: goals of --until, promises of --slo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from workloom.answers.slo import JudgeBy, Slo, exit_code, judge
from workloom.answers.until import ended
from workloom.cli.show import print_run
from workloom.cli.until import NOT_REACHED, print_ended
from workloom.metrics.measured import measured
from workloom.plan import Plan
from workloom.store import Run

if TYPE_CHECKING:
    from workloom.metrics.summary import Summary


def print_judged(run: Run, plan: Plan, promised: Sequence[Slo], by: JudgeBy, *, json: bool) -> tuple[Summary, int]:
    """The numbers of a run to stdout, then the verdicts; with the exit code that they make: 0, 3 or 4."""
    from workloom.metrics.summary import encode, summarize

    if not promised and not plan.recipe.limits.until:
        return print_run(run, json=json), 0
    seen = measured(run)
    known = ended(run.path, seen, len(plan.source))
    judgements = judge(seen, promised, by=by)
    code = exit_code(judgements) if judgements else 0
    if known is not None and known.verdict != "reached":
        code = code or NOT_REACHED
    if json:
        summary = summarize(run)
        document: dict[str, Any] = msgspec.json.decode(encode(summary))
        if known is not None:
            document["until"] = known
        if judgements:
            document["slos"] = judgements
        print(msgspec.json.format(msgspec.json.encode(document), indent=1).decode())
        return summary, code
    summary = print_run(run, json=False)
    if known is not None:
        print_ended(known)
    if judgements:
        from workloom.cli.slo import print_judgements

        print()
        print_judgements(judgements)
    return summary, code
