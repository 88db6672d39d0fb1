"""What the scraper's process and the run's side of it have to agree on."""

from __future__ import annotations

from msgspec import Struct

HEADERS_VARIABLE = "WORKLOOM_SCRAPE_HEADERS"
"""Headers as JSON: keys are secrets, and what is in argv everybody can read."""
LAST_S = 1.0
"""The last scrape may take this long."""


class Line(Struct, omit_defaults=True):
    """What the process says: figures of one scrape, or why there are none. Instants: :func:`workloom.clock.raw_ns`."""

    url: str
    at_ns: int
    rows: list[tuple[str, str, float, int]] = []
    """(name, replica, value, at_ns)."""
    page: str | None = None
    families: list[str] = []
    took_s: float = 0.0
    bad_lines: int = 0
    fault: str | None = None
    missed: int = 0
    """Scrapes that were due and left out, because the one before took too long."""
