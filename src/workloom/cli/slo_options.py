"""Options of commands that judge a run by promises."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

if TYPE_CHECKING:  # --help loads no metrics
    from workloom.answers.slo import Slo

SLO = Group("SLOs", sort_key=2)


@Parameter(name="*", group=SLO)
@dataclass(frozen=True)
class SloOptions:
    """What was promised, and by what it is judged."""

    slo: Annotated[list[str], Parameter(negative="")] = field(default_factory=list)
    "FIGURE<=LIMIT, as in ttft_p95<=0.75s or errors<2%, or @FILE, a YAML list of them; may be given again."
    slo_judge: Literal["interval", "point"] = "interval"
    "What decides: all of a figure's 95 % interval (the default), or the figure alone."

    def read(self) -> list[Slo]:
        """The SLOs. Raises UsageError."""
        from workloom.answers.slo import slos

        found = slos(self.slo)
        for one in found:
            if one.figure.about.unit == "s" and one.text[-1].isdigit():
                print(f"note: {one.text} is read as {one.limit:g} seconds", file=sys.stderr)
        return found
