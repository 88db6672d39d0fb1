"""Write what docs/workloads.md and docs/workloads/NAME.md (a page for each built-in workload) can be told by code.

    python scripts/make_workload_pages.py [--check]

A page says in prose where the workload's numbers come from; behind it stands what its first sessions measure.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from msgspec import Struct
from msgspec.structs import fields

from workloom.model.describe import Description, describe
from workloom.model.workload import builtin
from workloom.model.workload.file import structs
from workloom.model.workload.opening import drawn

DOCS = Path(__file__).parent.parent / "docs"
FOLDER = DOCS / "workloads"
REFERENCE = "a test keeps it true.\n"
"""The end of the last line of docs/workloads.md that is not written here."""
SESSIONS = 100

MEASURED = f"The first {SESSIONS} sessions of seed 0:"
"""The line of a page from which on it is written here."""


def page(name: str) -> str:
    """The page of a workload: its prose, and what is measured."""
    prose, _, _ = (FOLDER / f"{name}.md").read_text("utf-8").partition(MEASURED)
    seen = describe(drawn(builtin.builtin(name), 0, SESSIONS))
    rows = "\n".join(f"| {what} | {value} |" for what, value in _table(seen))
    return f"{prose}{MEASURED}\n\n| | |\n| --- | --- |\n{rows}\n"


def _table(seen: Description) -> list[tuple[str, str]]:
    return [
        ("calls", f"{seen.calls:,}"),
        ("calls a session", f"{seen.calls_per_session_median:,.4g} (median), {seen.calls_per_session_max:,} (most)"),
        ("subagents", f"{seen.subagents:,}"),
        ("longest path, most at one depth", f"{seen.depth_max:,} calls, {seen.width_max:,}"),
        ("prompt tokens", f"{seen.prompt_tokens_median:,.0f} (median), {seen.prompt_tokens_max:,} (most)"),
        ("output tokens", f"{seen.output_tokens_median:,.0f} (median), {seen.output_tokens_mean:,.0f} (mean)"),
        ("longest output", f"{seen.output_tokens_max:,} tokens"),
        ("new to any cache", f"{seen.fresh_tokens_median:,.0f} (median), {seen.fresh_tokens_mean:,.0f} (mean) a call"),
        ("ideal hit rate, outputs kept", f"{100 * (seen.ideal_hit_rate_with_outputs or 0):.1f} %"),
    ]


def reference() -> str:
    """docs/workloads.md with every key of a workload file and every family."""
    prose, _, _ = (DOCS / "workloads.md").read_text("utf-8").partition(REFERENCE)
    parts = [_struct(struct) for struct in structs()]
    return prose + REFERENCE + "".join(f"\n{part}" for part in parts)


def _struct(struct: type[Struct]) -> str:
    family = struct.__struct_config__.tag
    title = f"Family `{family}`" if family is not None else struct.__name__
    said = [" ".join(line.split()) for line in inspect.cleandoc(struct.__doc__ or "").split("\n\n")]
    keys = ", ".join(f"`{key.encode_name}`" + ("" if key.required else " (optional)") for key in fields(struct))
    return f"### {title}\n\n" + "\n\n".join([f"Keys: {keys}.", *said]) + "\n"


def main() -> int:
    pages = {FOLDER / f"{name}.md": page(name) for name in builtin.names()}
    pages[DOCS / "workloads.md"] = reference()
    stale = [path for path, text in pages.items() if text != path.read_text("utf-8")]
    if "--check" in sys.argv:
        names = ", ".join(path.name for path in stale)
        print(f"out of date: {names}; run scripts/make_workload_pages.py" if stale else "pages are true")
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages[path], "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
