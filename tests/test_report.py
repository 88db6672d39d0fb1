"""A report is one file that needs nothing else, says the same in charts and tables, and runs no text of a trace."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from rich.console import Console

from workloom.model.distribution import SHARES, distribution
from workloom.report.figure import Axis, Figure, Kind, Series
from workloom.report.html import embed
from workloom.report.page import LIBRARIES, SCRIPTS, Section, page
from workloom.report.table import Column, Table, numbers
from workloom.report.terminal import print_tables
from workloom.report.units import text
from workloom.session import prompt_tokens
from workloom.traces import open_trace

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "src/workloom/report"
CHROMIUM = shutil.which("chromium")

FOUR = ("weka", "openclaw interp-dag", "claude-code sessions of two weeks in spring", "canonical")
GAPS = ("tool", "human", "spawn", "network")
LONG = tuple(f"{kind} {i}: a subagent that looks up files" for kind in ("Explore", "general-purpose") for i in range(6))
TURNS = tuple(float(turn) for turn in range(40))
HOURS = tuple(float(hour) for hour in range(24))
LEVELS = (0.0, *(0.1 + 0.9 * k / 40 for k in range(41)))
SHARE = Axis("share of calls", "share")


def curve(i: int, turn: float) -> float | None:
    """A wave with two holes and a lone point between them."""
    return None if turn in (11, 13) else 20 + 10 * i + 8 * math.sin(turn / 5 + i)


def tail(i: int, low: float, high: float) -> tuple[float, ...]:
    """Values at LEVELS: 0, then through all powers of ten from low to high."""
    return (0.0, *(low * (high / low) ** ((k / 40) ** (1 + i / 3)) for k in range(41)))


def lines(count: int, stretch: float = 1.0) -> tuple[Series, ...]:
    xs = tuple(stretch * turn for turn in TURNS)
    return tuple(Series(name, xs, tuple(curve(i, turn) for turn in TURNS)) for i, name in enumerate(FOUR[:count]))


def bands(count: int) -> tuple[Series, ...]:
    def times(factor: float, ys: tuple[float | None, ...]) -> tuple[float | None, ...]:
        return tuple(None if y is None else factor * y for y in ys)

    return tuple(Series(each.name, each.x, each.y, times(0.8, each.y), times(1.3, each.y)) for each in lines(count))


def cdfs(count: int, low: float, high: float) -> tuple[Series, ...]:
    return tuple(Series(name, tail(i, low, high), LEVELS) for i, name in enumerate(FOUR[:count]))


def bars(count: int, xs: tuple[str, ...] | tuple[float, ...]) -> tuple[Series, ...]:
    def height(i: int, k: int) -> float | None:
        return None if k == 3 else 1000 / (k + i + 1)

    return tuple(Series(name, xs, tuple(height(i, k) for k in range(len(xs)))) for i, name in enumerate(FOUR[:count]))


def stacks(count: int) -> tuple[Series, ...]:
    amounts = (0.42, 0.31, 0.2, 0.07)
    return tuple(
        Series(gap, FOUR[:count], tuple(amounts[(k + i) % 4] for i in range(count))) for k, gap in enumerate(GAPS)
    )


def matrix(names: tuple[str, ...]) -> tuple[Series, ...]:
    def cell(i: int, k: int) -> float | None:
        return None if (i + k) % 5 == 4 else (i + 1) * (k + 1) / 64

    return tuple(Series(row, names, tuple(cell(i, k) for k in range(len(names)))) for i, row in enumerate(names[:6]))


def front(count: int) -> tuple[Series, ...]:
    def points(i: int, factor: float) -> tuple[float, ...]:
        return tuple(factor * (i + 1) * (k + 1) ** 2 for k in range(4))

    return tuple(
        Series(
            name=name,
            x=tuple(2.0**k for k in range(4)),
            y=points(i, 0.05),
            low=points(i, 0.04),
            high=points(i, 0.07),
            x_low=tuple(2.0**k * 0.9 for k in range(4)),
            x_high=tuple(2.0**k * 1.1 for k in range(4)),
            labels=tuple(f"{2**k} sessions" for k in range(4)),
        )
        for i, name in enumerate(FOUR[:count])
    )


def drawn(key: str, kind: Kind, x: Axis, y: Axis, series: tuple[Series, ...], value: Axis | None = None) -> Figure:
    return Figure(
        key=key,
        title=f"{key.capitalize()}, {len(series)} series",
        kind=kind,
        x=x,
        y=y,
        series=series,
        value=value,
        note="What one sees here, in a sentence or two that are as long as those under a chart usually are.",
        question="What does it look like?",
    )


def figures(count: int) -> tuple[Figure, ...]:
    """Every kind of figure, with so many series."""
    turn, wait, role = Axis("turn"), Axis("wait", "s", log=True), Axis("role")
    return (
        drawn("line", "line", turn, Axis("context", "k tokens"), lines(count)),
        drawn("step", "step", Axis("time of the trace", "s"), Axis("calls in flight"), lines(count, 3000)),
        drawn("prompts", "cdf", Axis("prompt", "tokens", log=True), SHARE, cdfs(count, 1e-3, 1e6)),
        drawn("waits", "cdf", wait, SHARE, cdfs(count, 0.01, 3e5)),
        drawn("roles", "bar", role, Axis("calls per session"), bars(count, LONG)),
        drawn("hours", "bar", Axis("hour of the day"), Axis("calls"), bars(count, HOURS)),
        drawn("gaps", "stack", Axis("trace"), Axis("share of wait", "share"), stacks(count)),
        drawn("composition", "stack", turn, Axis("prompt", "tokens"), bars(count, TURNS)),
        drawn("band", "band", turn, Axis("TTFT", "s"), bands(count)),
        drawn("heat", "heat", Axis("to"), Axis("from"), matrix(LONG if count > 1 else GAPS), SHARE),
        drawn("dots", "dots", Axis("sessions at once", log=True), Axis("TTFT p90", "s"), front(count)),
        drawn("empty", "line", turn, turn, (Series("nothing"),)),
    )


SAMPLES = Table(
    "Samples",
    (
        Column("trace", align="left"),
        Column("calls"),
        Column("prompt", "tokens"),
        Column("wait", "s"),
        Column("hits", "share"),
    ),
    (
        ("weka", 4652, 123456.78, 0.0123, 0.97512),
        ("openclaw", 12, None, 86400.0, 0.99996),
        ("a name that goes on and on and on, as the names of traces sometimes do", 1, 2.5, math.inf, 1.0),
    ),
    "Means over calls.",
)
LEAD = "Two traces. " + "A lead is a few sentences that say what the section is about and what to look at. " * 3


def demo() -> str:
    """Every kind of figure with one series, then with four."""
    sections = [Section(f"s{count}", f"{count} series", LEAD, (SAMPLES,), figures(count)) for count in (1, 4)]
    return page("Demo of a report", "every kind of chart, once with one series and once with four", sections)


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of each; an element that is not closed in order is a fault."""

    EMPTY = ("meta",)

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[int] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        if tag not in self.EMPTY:
            self._open.append(len(self.texts) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for place in self._open:
            self.texts[place] += data

    def of(self, tag: str, **attributes: str) -> list[str]:
        """The texts of the elements with that tag and those attributes."""
        found = zip(self.elements, self.texts, strict=True)
        return [text for (name, has), text in found if name == tag and attributes.items() <= has.items()]


def small(figure: Figure, **more: str) -> str:
    """A page about one figure."""
    return page("title", "subtitle", [Section("only", "Only", "", (), (figure,))], **more)


def simple(series: Sequence[Series], kind: Kind = "line", x: Axis | None = None, y: Axis | None = None) -> Figure:
    return drawn("simple", kind, x or Axis("x"), y or Axis("y"), tuple(series))


def test_a_page_is_well_formed_and_equal_for_equal_input() -> None:
    html = demo()
    assert html == demo()
    parsed = Parsed(html)
    ids = [has["id"] for _, has in parsed.elements if "id" in has]
    assert len(ids) == len(set(ids))
    assert parsed.of("h1") == ["Demo of a report"]
    assert parsed.of("h2") == ["1 series", "4 series"]
    links = [has["href"] for tag, has in parsed.elements if tag == "a"]
    assert links == ["#s1", "#s4"]
    assert {link.removeprefix("#") for link in links if link} <= set(ids)


def test_a_time_stands_in_a_page_only_if_it_is_passed_in() -> None:
    figure = simple([Series("one", (1.0,), (2.0,))])
    assert Parsed(small(figure)).of("p", **{"class": "when"}) == []
    assert Parsed(small(figure, when="1 May 2026")).of("p", **{"class": "when"}) == ["1 May 2026"]


def test_a_page_loads_nothing_and_runs_only_its_own_scripts() -> None:
    parsed = Parsed(demo())
    loading = {"src", "srcset", "data", "poster", "action", "formaction", "background", "xlink:href"}
    for tag, has in parsed.elements:
        assert not loading & set(has), (tag, has)
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form")
        assert not [name for name in has if name.startswith("on")]
        assert tag == "a" or "href" not in has
    (style,) = parsed.of("style")
    assert "@import" not in style and "url(" not in style and "@font-face" not in style
    (policy,) = [has["content"] for _, has in parsed.elements if has.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    scripts = [
        text
        for (tag, has), text in zip(parsed.elements, parsed.texts, strict=True)
        if tag == "script" and "type" not in has
    ]
    assert len(scripts) == len(LIBRARIES) + len(SCRIPTS)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"'sha256-([^']+)'", policy) == digests


HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!-- <script>",
    "' onmouseover='alert(1)",
    "&lt;b&gt; \u2028 ]]> </style></textarea>",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_of_a_trace_breaks_out(name: str) -> None:
    def told(name: str) -> str:
        axis = Axis(name, name)
        series = Series(name, (1.0, 2.0), (1.0, 2.0), labels=(name, name))
        shown = Figure("f", name, "dots", axis, axis, (series,), name, name)
        rows = Figure("g", name, "heat", axis, axis, (Series(name, (name,), (1.0,)),), name, name, axis)
        table = Table(name, (Column(name, name), Column(name, name)), ((name, 1.0),), name)
        return page(name, name, [Section("a", name, name, (table,), (shown, rows)), Section("b", name)], when=name)

    hostile, tame = Parsed(told(name)), Parsed(told("tame"))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in tame.elements]
    assert [set(has) for _, has in hostile.elements] == [set(has) for _, has in tame.elements]
    assert hostile.of("h1") == [name]
    (embedded,) = hostile.of("script", id="figures")
    assert {figure["title"] for figure in json.loads(embedded)} == {name}


@given(st.text())
def test_embedded_json_holds_no_sign_that_html_reads_and_comes_back_whole(said: str) -> None:
    assert not set(embed([said])) & set("<>&\u2028\u2029")
    assert json.loads(embed([said])) == [said]


def test_every_number_drawn_is_in_the_page_in_full_and_in_a_table() -> None:
    drawn_figures = [*figures(1), *figures(4)]
    parsed = Parsed(demo())
    (embedded,) = parsed.of("script", id="figures")
    assert json.loads(embedded) == [json.loads(embed(figure)) for figure in drawn_figures]
    for figure in drawn_figures:
        shown = Counter(cell for row in numbers(figure).rows for cell in row if isinstance(cell, float))
        every = [value for s in figure.series for value in (*s.x, *s.y, *(v for _, values in s.extras for v in values))]
        assert set(shown) == {value for value in every if isinstance(value, float)}
    told = [has["value"] for tag, has in parsed.elements if tag == "data"]
    pi_ish = 20 + 8 * math.sin(0.2)
    assert repr(pi_ish) in told and "inf" in told


@settings(max_examples=50)
@given(st.lists(st.lists(st.floats(allow_nan=False) | st.none(), min_size=3, max_size=3), min_size=1, max_size=4))
def test_the_table_of_a_figure_gives_back_its_series(values: list[list[float | None]]) -> None:
    xs = (1.0, 2.0, 3.0)
    told = numbers(simple([Series(str(i), xs, tuple(ys)) for i, ys in enumerate(values)]))
    assert [list(column) for column in zip(*told.rows, strict=True)] == [list(xs), *values]


def test_series_over_the_same_x_stand_side_by_side() -> None:
    told = numbers(simple([Series("a", (1.0, 2.0), (5.0, None)), Series("b", (1.0, 2.0), (7.0, 8.0)), Series("none")]))
    assert [column.name for column in told.columns] == ["x", "a", "b"]
    assert told.rows == ((1.0, 5.0, 7.0), (2.0, None, 8.0))


def test_curves_at_the_same_shares_stand_side_by_side_over_the_share() -> None:
    told = numbers(simple([Series("a", (5.0, 9.0), (0.5, 1.0)), Series("b", (6.0, 7.0), (0.5, 1.0))], "cdf"))
    assert [column.name for column in told.columns] == ["y", "a", "b"]
    assert told.rows == ((0.5, 5.0, 6.0), (1.0, 9.0, 7.0))


def test_series_that_share_nothing_or_have_errors_are_one_list() -> None:
    told = numbers(simple([Series("a", (1.0,), (5.0,)), Series("b", (2.0,), (6.0,), low=(5.5,), high=(7.0,))], "dots"))
    assert [column.name for column in told.columns] == ["series", "x", "y", "y, low", "y, high"]
    assert told.rows == (("a", 1.0, 5.0, None, None), ("b", 2.0, 6.0, 5.5, 7.0))


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (None, "s", "–"),
        (math.nan, "", "–"),
        (math.inf, "s", "∞"),
        ("as it is", "s", "as it is"),
        (0.0, "s", "0 s"),
        (0.00002, "s", "20.0 µs"),
        (0.0123, "s", "12.3 ms"),
        (0.99999, "s", "1.00 s"),
        (59.5, "s", "59.5 s"),
        (90, "s", "1.50 min"),
        (5400, "s", "1.50 h"),
        (259_200, "s", "3.00 d"),
        (0.5, "share", "50.0%"),
        (1, "share", "100.0%"),
        (0.9997, "share", "99.97%"),
        (0.999999, "share", ">99.99%"),
        (0.00012, "share", "0.012%"),
        (0.0, "share", "0.0%"),
        (1234567, "tokens", "1,234,567"),
        (5.0, "tokens", "5"),
        (1234.5, "", "1,234"),
        (12.34, "", "12.3"),
        (0.012345, "", "0.0123"),
        (-2.5, "", "-2.50"),
    ],
)
def test_numbers_are_told_in_three_digits_or_so(value: float | str | None, unit: str, said: str) -> None:
    assert text(value, unit) == said


def test_a_table_has_a_caption_scopes_and_units_and_keeps_the_numbers_it_rounds() -> None:
    parsed = Parsed(page("t", "", [Section("a", "A", "", (SAMPLES,))]))
    assert parsed.of("caption") == ["Samples"]
    assert parsed.of("th", scope="col") == ["trace", "calls", "prompt (tokens)", "wait", "hits"]
    assert parsed.of("th", scope="row")[:2] == ["weka", "openclaw"]
    plain = [has.get("data-plain") for tag, has in parsed.elements if tag == "th" and has["scope"] == "col"]
    assert plain == [None, None, None, "wait (s)", "hits (share of 1)"]
    assert parsed.of("td")[:4] == ["4,652", "123,457", "12.3 ms", "97.5%"]
    told = [has["value"] for tag, has in parsed.elements if tag == "data"]
    assert told[:4] == ["4652", "123456.78", "0.0123", "0.97512"]


def test_every_figure_has_a_name_a_caption_and_its_numbers_without_javascript() -> None:
    parsed = Parsed(demo())
    count = len(figures(1)) + len(figures(4))
    frames = [has for _, has in parsed.elements if has.get("class") == "chart"]
    assert [frame["data-figure"] for frame in frames] == [str(place) for place in range(count)]
    assert all(frame["role"] == "img" and frame["aria-label"] for frame in frames)
    assert len(parsed.of("figcaption")) == len(parsed.of("details")) == count
    assert len(parsed.of("noscript")) == 1


def test_what_a_logarithmic_axis_cannot_show_is_counted_under_the_chart() -> None:
    log = Axis("wait", "s", log=True)
    series = [Series("a", (0.0, 1.0, 2.0), (0.1, 0.5, 1.0))]
    (said,) = Parsed(small(simple(series, "line", log))).of("figcaption")
    assert said.endswith("1 value of 0 or less cannot stand on a logarithmic axis; see the numbers.")
    (said,) = Parsed(small(simple(series, "cdf", log))).of("figcaption")
    assert "logarithmic" not in said


def test_what_cannot_be_drawn_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="series a: 2 of x, 1 of y"):
        Series("a", (1.0, 2.0), (1.0,))
    with pytest.raises(ValueError, match="series a: 1 of x, 2 of low"):
        Series("a", (1.0,), (1.0,), low=(0.5, 0.6))
    with pytest.raises(ValueError, match="a name on the x axis of a line"):
        simple([Series("a", ("one",), (1.0,))])
    with pytest.raises(ValueError, match="needs an axis for its values"):
        simple([Series("a", ("one",), (1.0,))], "heat")
    with pytest.raises(ValueError, match="a row of 1 cells, 2 columns"):
        Table("t", (Column("a"), Column("b")), (("x",),))
    figure = simple([Series("a", (1.0,), (1.0,))])
    with pytest.raises(ValueError, match="two parts of a report have the key 'only-simple'"):
        page("t", "", [Section("only", "Only", figures=(figure, structs.replace(figure, title="again")))])
    with pytest.raises(ValueError, match="a part of a report has no key"):
        page("t", "", [Section("", "Nameless")])


def test_colours_can_be_seen_on_their_background_in_both_modes() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    pattern = r"--(\w+): light-dark\((#\w{6}), (#\w{6})\);"
    colours = {name: modes for name, *modes in re.findall(pattern, (REPORT / "page.css").read_text())}
    for mode in (0, 1):
        card, back = colours["card"][mode], colours["page"][mode]
        for place in range(1, 9):
            assert contrast(colours[f"s{place}"][mode], card) >= 3, (place, mode)
        for words in ("text", "faint", "link"):
            assert min(contrast(colours[words][mode], card), contrast(colours[words][mode], back)) >= 4.5, words
    for names in ("DASHES", "SYMBOLS"):
        (listed,) = re.findall(rf"const {names} = (\[[^\]]+\]);", (REPORT / "charts.js").read_text())
        assert len(set(json.loads(listed))) == 8


def test_the_vendored_builds_are_the_expected_ones_under_their_licences() -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts/vendor_charts.py"), "--check"], check=True, capture_output=True)
    html = demo()
    for name in LIBRARIES:
        licence = (REPORT / f"vendor/{name}.LICENSE.txt").read_text()
        assert "*/" not in licence and licence in html
        assert "</script" not in (REPORT / "vendor" / name).read_text().lower()


def test_tables_on_a_terminal_say_the_same_and_read_no_name_as_markup() -> None:
    table = Table("Roles", (Column("role", align="left"), Column("wait", "s")), (("[red]Explore[/red]", 90.0),), "[n]")
    console = Console(file=io.StringIO(), width=80, color_system=None)
    print_tables(console, [Section("a", "Who waits", "A [lead].", (table,))])
    out = console.file
    assert isinstance(out, io.StringIO)
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    for said in ("Who waits", "A [lead].", "Roles", "role wait", "[red]Explore[/red] 1.50 min", "[n]"):
        assert said in lines


def test_a_chart_of_a_real_trace_shows_what_its_distribution_says() -> None:
    path = ROOT.parent / "shared/data/codex"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    prompts = [tokens for session in open_trace([str(path)]) for tokens in prompt_tokens(session).values()]
    found = distribution(prompts)
    figure = simple([Series("codex", found.quantiles, SHARES)], "cdf", Axis("prompt", "tokens", log=True), SHARE)
    told = dict(numbers(figure).rows)
    assert told[0.5] == found.p50 and told[1.0] == found.max == max(prompts)


MEASURE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const told = [];
  for (const frame of document.querySelectorAll(".chart")) {
    const card = frame.closest(".card").getBoundingClientRect(), key = frame.closest(".card").id;
    const texts = [...frame.querySelectorAll("text")].filter((text) => text.textContent);
    const boxes = texts.map((text) => text.getBoundingClientRect());
    const out = boxes.some((b) => b.left < card.left || b.right > card.right || b.top < card.top);
    const ticks = [...frame.querySelectorAll("[aria-label='x-axis tick label'] text")];
    const flat = ticks.filter((text) => !/rotate/.test(text.getAttribute("transform")));
    const edges = flat.map((text) => text.getBoundingClientRect()).sort((a, b) => a.left - b.left);
    const touch = edges.some((b, i) => i && b.left < edges[i - 1].right);
    told.push({ key, svg: frame.querySelectorAll("svg").length, texts: texts.length, ticks: ticks.length, out, touch });
  }
  const csv = [...document.querySelectorAll("table")].map((table) => globalThis.eval("csv")(table));
  const wide = document.documentElement.scrollWidth > innerWidth;
  document.body.replaceChildren(JSON.stringify({ told, wide, csv }));
}, 500));
</script>
</body>"""
"""Says of every chart whether a text leaves its card and whether labels of the x axis run into each other."""


def opened(html: str, folder: Path, width: int = 1280) -> str:
    """The page as it stands in a browser after its scripts have run."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    (folder / "page.html").write_text(html, encoding="utf-8")
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom"),
            *(f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--virtual-time-budget=5000"),
            *("--enable-logging=stderr", (folder / "page.html").as_uri()),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr
    return done.stdout


def test_a_browser_draws_a_page_under_its_own_policy_and_shows_hostile_names_as_text(tmp_path: Path) -> None:
    names = [Series(name, (1.0, 2.0), (1.0, 2.0)) for name in HOSTILE]
    seen = Parsed(opened(small(simple(names)), tmp_path))
    assert [has["role"] for tag, has in seen.elements if tag == "div" and has.get("class") == "chart"] == ["img"]
    assert len([tag for tag, _ in seen.elements if tag == "path"]) >= 2 * len(HOSTILE)
    (legend,) = seen.of("div", **{"class": "legend"})
    assert legend == "".join(HOSTILE)


@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_draws_every_figure_and_no_text_is_cut_or_overlaps(tmp_path: Path, width: int) -> None:
    html = re.sub("<meta http-equiv[^>]*>", "", demo()).replace("</body>", MEASURE)
    (body,) = Parsed(opened(html, tmp_path, width)).of("body")
    seen = json.loads(body)
    assert not seen["wide"]
    assert len(seen["told"]) == len(figures(1)) + len(figures(4))
    for chart in seen["told"]:
        empty = chart["key"].endswith("-empty")
        assert (chart["svg"] == 0) if empty else (chart["svg"] == 1 and chart["ticks"] >= 2), chart
        assert not chart["out"] and not chart["touch"], chart
    samples = seen["csv"][0].splitlines()
    assert samples[0] == "trace,calls,prompt (tokens),wait (s),hits (share of 1)"
    assert samples[1:3] == ["weka,4652,123456.78,0.0123,0.97512", "openclaw,12,,86400.0,0.99996"]
