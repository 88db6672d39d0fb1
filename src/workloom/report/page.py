"""One HTML file that needs nothing but itself: text, tables, charts, and the code that draws them.

Equal input gives an equal page, to the byte; a time stands in it only if it is passed in.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files

from msgspec import Struct

from workloom import __version__
from workloom.report.figure import Figure
from workloom.report.html import anchor, embed, figure_html, table_html
from workloom.report.table import Table

LIBRARIES = ("d3.min.js", "plot.umd.min.js")
SCRIPTS = ("axes.js", "charts.js", "page.js")


class Section(Struct, frozen=True):
    """A chapter: what it says in a few sentences, then its tables, then its figures."""

    key: str
    title: str
    lead: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


def page(title: str, subtitle: str, sections: Sequence[Section], *, when: str = "") -> str:
    """The report as HTML. `when`: a date or time to put into its head."""
    figures = [figure for section in sections for figure in section.figures]
    scripts = [*map(_library, LIBRARIES), *map(_asset, SCRIPTS)]
    about = "".join(
        f'<p class="{name}">{escape(said)}</p>' for name, said in (("sub", subtitle), ("when", when)) if said
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<header><button type="button" id="theme">Light / dark</button><h1>{escape(title)}</h1>{about}</header>
<noscript><p class="note">Charts need JavaScript. Their numbers are in the tables under each heading.</p></noscript>
{_contents(sections)}
<main>
{_chapters(sections)}
</main>
<footer>workloom {escape(__version__)}. Charts: Observable Plot and d3, whose licences are in this file.</footer>
<script type="application/json" id="figures">{embed(figures)}</script>
{_run(scripts)}
</body>
</html>
"""


def _contents(sections: Sequence[Section]) -> str:
    links = "".join(f'<li><a href="#{anchor(section.key)}">{escape(section.title)}</a></li>' for section in sections)
    return f'<nav aria-label="Contents"><ol>{links}</ol></nav>' if len(sections) > 1 else ""


def _chapters(sections: Sequence[Section]) -> str:
    chapters: list[str] = []
    ids: set[str] = set()
    place = 0
    for section in sections:
        id = _new(anchor(section.key), ids)
        lead = f'<p class="lead">{escape(section.lead)}</p>' if section.lead else ""
        drawn = []
        for figure in section.figures:
            drawn.append(figure_html(figure, _new(anchor(section.key, figure.key), ids), place))
            place += 1
        tables = "\n".join(table_html(table) for table in section.tables)
        cards = '<div class="cards">\n' + "\n".join(drawn) + "\n</div>" if drawn else ""
        parts = [f"<h2>{escape(section.title)}</h2>{lead}", tables, cards]
        chapters.append(f'<section id="{id}">' + "\n".join(filter(None, parts)) + "</section>")
    return "\n".join(chapters)


def _new(id: str, ids: set[str]) -> str:
    if not id or id in ids:
        raise ValueError(f"two parts of a report have the key {id!r}" if id else "a part of a report has no key")
    ids.add(id)
    return id


def _run(scripts: Sequence[str]) -> str:
    return "\n".join(f"<script>{script}</script>" for script in scripts)


def _policy(scripts: Sequence[str]) -> str:
    """Nothing is loaded from anywhere, and no script runs but these."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'"


def _library(name: str) -> str:
    """A vendored build under its licence, which asks to be in every copy."""
    return f"/*\n{_asset(f'vendor/{name}.LICENSE.txt')}*/\n{_asset(f'vendor/{name}')}"


@cache
def _asset(name: str) -> str:
    return files("workloom.report").joinpath(name).read_text(encoding="utf-8")
