"""The command line's root: commands hang themselves on it."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from workloom import __version__

app = App(
    name="workloom",
    help="How an LLM serving system behaves under agentic load: real traces in, live or simulated runs, numbers out.",
    version=__version__,
    suppress_keyboard_interrupt=False,
)

Json = Annotated[bool, Parameter(negative="", help="Print JSON.")]
Out = Annotated[str, Parameter(name=["--out", "-o"])]
OutOrNone = Annotated[str | None, Parameter(name=["--out", "-o"])]
