"""Write docs/cli.md from the command line's own --help, or with --check say whether it is up to date."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from workloom.cli import app

TARGET = Path(__file__).parent.parent / "docs" / "cli.md"
COMMANDS = (
    *("run", "plan", "serve", "check", "selftest", "show", "agentx", "trie", "inspect", "characterize", "fit", "synth"),
    *("fidelity", "workloads", "schema"),
    *("import", "anonymize", "export", "profiles", "calibrate"),
    *("metrics", "slo", "capacity", "sweep", "compare", "plan-size", "probe", "sql"),
)


def page() -> str:
    """The reference as Markdown."""
    out = ["# Command line", "", "Written by scripts/make_cli_docs.py from `--help`; a test keeps it true.", ""]
    for command in ((), *((name,) for name in COMMANDS)):
        text = io.StringIO()
        console = Console(file=text, width=110, color_system=None, force_terminal=False)
        app.help_print([*command], console=console)
        lines = [line.rstrip() for line in text.getvalue().strip().splitlines()]
        out += [f"## {' '.join(('workloom', *command))}", "", "```text", *lines, "```", ""]
    return "\n".join(out)


def main() -> int:
    if "--check" in sys.argv:
        if TARGET.read_text() == page():
            return 0
        print(f"{TARGET.name} is out of date: run scripts/make_cli_docs.py")
        return 1
    TARGET.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
