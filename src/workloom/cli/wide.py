"""Stdout for tables that may be wider than a page."""

from __future__ import annotations

import sys

from rich.console import Console

WIDE = 1000
"""Columns of what goes into a file or a pipe: there nothing is folded."""


def wide() -> Console:
    """As wide as the terminal; without one, as wide as it takes."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return Console(width=None if terminal else WIDE, highlight=False, markup=False)
