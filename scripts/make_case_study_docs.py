"""Write the tables of docs/case-studies.md from the results of the case studies, or with --check compare them.

    scripts/make_case_study_docs.py                     tables from examples/results.json
    scripts/make_case_study_docs.py --run --rows DIR    run the studies first (minutes); DIR holds the measured rows
    scripts/make_case_study_docs.py --collect DIR       take results that the commands have left in DIR
    scripts/make_case_study_docs.py --check             fail if the page is not what the results say

What stands between `<!-- table: NAME -->` and `<!-- end -->` is made here; the rest is written by hand.
"""

from __future__ import annotations

import argparse
import re
import runpy
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from textwrap import fill

import msgspec
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from h100.options import QUIRKS, told
from h100.tables import BOTH, NAMED, Row, number, ratio, span

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "case-studies.md"
RESULTS = ROOT / "examples" / "results.json"
ARRIVALS = {2: "case2_linear.parquet", 3: "case3_linear_4.0.parquet"}
INTERVAL = "rho*, TBC limit 74 to 76 ms"
ASKED = {"rho*, requests/s": None, INTERVAL: 0.05, "useful work": 0.05, "slack of a fleet for chains": None}
"""Tolerance of a figure where it is not `USUAL`; None where nothing was asked."""
USUAL = 0.1
AT_MOST, AT_LEAST = "most decodes at once", "time at 10 or more"

Results = dict[str, list[Row]]
Cells = list[str]


# -- results


def run(rows: Path, folder: Path) -> None:
    """All commands, into a folder."""
    _command(1, folder)
    for study, seeds in ((2, []), (3, ["--seeds", "3"])):
        for without in ([], ["--without", "all"]):
            _command(study, folder, *without)
            _command(study, folder, *without, "--rows", str(rows / ARRIVALS[study]), *seeds)
    _command(3, folder, "--rows", str(rows / ARRIVALS[3]), "--curve")
    for quirk in QUIRKS:
        _command(2, folder, "--without", quirk)


def _command(study: int, folder: Path, *options: str) -> None:
    main = runpy.run_path(str(ROOT / "examples" / f"case-study-{study}" / "run.py"))["main"]
    if told(partial(main, ["--out", str(folder), *options])):
        raise SystemExit(2)


def collect(folder: Path) -> Results:
    """The tables that the commands left in a folder, by title."""
    return {
        path.stem: msgspec.json.decode(path.read_bytes(), type=list[Row])
        for path in sorted(folder.glob("case-study-*.json"))
    }


def write(results: Results) -> bytes:
    """One row a line, six digits a figure."""
    parts = []
    for name, rows in results.items():
        lines = ",\n  ".join(msgspec.json.encode(short(row)).decode() for row in rows)
        parts.append(f' "{name}": [\n  {lines}\n ]')
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def short(row: Row) -> Row:
    return replace(row, values=tuple(None if v is None else float(f"{v:.6g}") for v in row.values))


def title(study: int, *, measured: bool = False, without: str = "") -> str:
    """As h100.tables.publish names its file."""
    kept = f"without-{without}" if without else "as-published"
    return f"case-study-{study}-{kept}" + ("-measured-arrivals" if measured else "")


# -- tables


def study_1(results: Results) -> str:
    rows = {(row.figure, row.of): row for row in results["case-study-1"]}
    turns = [row.figure for row in results["case-study-1"] if row.of == "cache"]
    body = []
    for figure in turns:
        cells = [figure.removeprefix("TTFC p50, turns ")]
        for of in ("cache", "no cache"):
            row = rows[figure, of]
            cells += [number(row.published, row.unit), number(row.simulated, row.unit), ratio(row)]
        body.append(cells)
    head = ["turns", "cache: published", "simulated", "ratio", "no cache: published", "simulated", "ratio"]
    return grid(head, body, left=1)


def study(number_: int, results: Results) -> str:
    """Published, on the measured arrivals, and over seeds; what was asked, and where it is kept."""
    arrivals, seeds = (results[title(number_, measured=measured)] for measured in (True, False))
    found = {(row.figure, row.of): row for row in seeds}
    body = []
    for row in arrivals:
        other = found[row.figure, row.of]
        cells = [row.figure, row.of, published(row)]
        body.append([*cells, cell(row), off(row), cell(other), off(other), asked(row), by(row, other)])
    head = ["figure", "of", "published", "measured arrivals", "ratio", "seeds", "ratio", "asked", "kept by"]
    return grid(head, body, left=2)


def siblings(results: Results) -> str:
    """Of study 2, as published."""
    both = [results[title(2, measured=measured) + "-nine-siblings"] for measured in (True, False)]
    named = zip(("measured arrivals", "seeds"), both, strict=True)
    body = [[name, *(number(row.simulated, row.unit) for row in rows)] for name, rows in named]
    return grid(["TTFC p50 of sibling", *map(str, range(1, len(both[0]) + 1))], body, left=1)


def without(results: Results) -> str:
    """As published and with all quirks left out, on the same arrivals and over seeds."""
    wanted = ("TTFC", "E2E", "hit rate", "most decodes", "rho*", "useful work", "slack")
    body = []
    for number_ in (2, 3):
        parts = [
            {(row.figure, row.of): row for row in results[title(number_, measured=measured, without=name)]}
            for measured in (True, False)
            for name in ("", "all")
        ]
        for key, row in parts[0].items():
            if row.figure.startswith(wanted) and not row.figure.endswith(" at rho*"):
                figure = f"{row.figure} at 0.18/s" if number_ == 2 else row.figure
                body.append([figure, row.of, published(row), *(cell(part[key]) for part in parts)])
    head = ["figure", "of", "published", "measured arrivals, quirks", "without", "seeds, quirks", "without"]
    return grid(head, body, left=2)


def each(results: Results) -> str:
    """Study 2 over seeds with one quirk left out at a time."""
    tables = {name: results[title(2, without=name)] for name in ("", *QUIRKS, "all")}
    wanted = ("TTFC p99", "E2E p95", "hit rate", AT_MOST)
    body = [
        [row.figure, row.of, *(number(rows[i].simulated, row.unit) for rows in tables.values())]
        for i, row in enumerate(tables[""])
        if row.figure in wanted and row.of != "chain"
    ]
    return grid(["figure", "of", "as published", *(f"`{name}`" for name in QUIRKS), "all four"], body, left=2)


def load(results: Results) -> str:
    """Study 3 on the measured arrivals, by rate."""
    by_rate: dict[str, Cells] = {}
    for row in results[title(3, measured=True) + "-by-load"]:
        by_rate.setdefault(row.figure.rsplit(" ", 1)[1], []).append(number(row.simulated, row.unit))
    body = [[f"{float(rate):.1f}", *cells] for rate, cells in by_rate.items()]
    figures = ("TBC p95", "TTFC p95", "hit rate")
    return grid(["requests/s", *(f"{of}: {name}" for of in NAMED.values() for name in figures)], body, left=1)


def missed(results: Results) -> str:
    """All that was asked and is not kept, in one list."""
    lines = []
    for measured, where in ((True, "On the measured arrivals"), (False, "Over seeds, by their median")):
        rows = [row for number_ in (2, 3) for row in results[title(number_, measured=measured)]]
        there = [row for row in rows if kept_by(row) is not None]
        out = [row for row in there if not kept_by(row)]
        names = "; ".join(f"{row.figure}, {row.of} ({off(row)})" for row in out)
        told = f"- {where} {len(there) - len(out)} of {len(there)} are kept. Missed: {names}."
        lines.append(fill(told, 120, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(lines) + "\n"


# -- a row


def kept_by(row: Row) -> bool | None:
    """Whether the median of the runs is within what was asked; None where nothing was."""
    tolerance = ASKED.get(row.figure, USUAL)
    if tolerance is None or row.ratio is None or (row.figure == AT_MOST and row.of == BOTH):
        return None
    if row.figure in (AT_MOST, AT_LEAST):
        return row.ratio <= 1 if row.figure == AT_MOST else row.ratio >= 1
    return round(row.miss if row.figure == INTERVAL else abs(row.ratio - 1), 3) <= tolerance


def by(arrivals: Row, seeds: Row) -> str:
    kept = [name for name, row in (("arrivals", arrivals), ("seeds", seeds)) if kept_by(row)]
    return "-" if kept_by(arrivals) is None else "both" if len(kept) == 2 else kept[0] if kept else "neither"


def asked(row: Row) -> str:
    if kept_by(row) is None:
        return "-"
    if row.figure in (AT_MOST, AT_LEAST):
        return "at most" if row.figure == AT_MOST else "at least"
    return f"{ASKED.get(row.figure, USUAL):.0%}".replace("%", " %")


def published(row: Row) -> str:
    return ("over " if row.figure == AT_LEAST else "") + number(row.published, row.unit)


def cell(row: Row) -> str:
    """The median, and the range of several runs; of an interval only the range."""
    if row.figure == INTERVAL:
        return span(row)
    whole, between = number(row.simulated, row.unit), span(row)
    return whole if between == whole else f"{whole} ({between})"


def off(row: Row) -> str:
    if row.figure != INTERVAL:
        return ratio(row)
    return "holds" if not row.miss else f"misses by {row.miss:.1%}".replace("%", " %")


def grid(head: Cells, body: Iterable[Cells], left: int) -> str:
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *body))


# -- the page


def page(written: str, results: Results) -> str:
    """The page with its tables made anew."""
    made = {
        "study 1": study_1(results),
        "study 2": study(2, results),
        "siblings": siblings(results),
        "study 3": study(3, results),
        "load": load(results),
        "missed": missed(results),
        "without": without(results),
        "each": each(results),
    }
    found = re.findall(r"<!-- table: (.*?) -->", written)
    if sorted(found) != sorted(made):
        raise SystemExit(f"{TARGET.name}: expected tables {sorted(made)}, found {sorted(found)}")

    def table(at: re.Match[str]) -> str:
        return f"<!-- table: {at[1]} -->\n\n{made[at[1]]}\n<!-- end -->"

    return re.sub(r"<!-- table: ([^\n]*?) -->\n.*?<!-- end -->", table, written, flags=re.S)


def main() -> int:
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    made.add_argument("--run", action="store_true", help="run the studies first")
    made.add_argument("--rows", type=Path, help="with --run: folder of the measured rows")
    made.add_argument("--collect", type=Path, help="folder with the tables of runs that were made")
    made.add_argument("--check", action="store_true", help="write nothing; fail if the page is out of date")
    given = made.parse_args()
    if given.run:
        if given.rows is None:
            made.error("--run needs --rows FOLDER: the tables have a column for the measured arrivals")
        given.collect = given.collect or ROOT / "build" / "case-studies"
        run(given.rows, given.collect)
    if given.collect is not None:
        RESULTS.write_bytes(write(collect(given.collect)))
    written = TARGET.read_text()
    whole = page(written, msgspec.json.decode(RESULTS.read_bytes(), type=Results))
    if given.check:
        if written == whole:
            return 0
        print(f"{TARGET.name} is out of date: run scripts/make_case_study_docs.py")
        return 1
    TARGET.write_text(whole)
    return 0


if __name__ == "__main__":
    sys.exit(main())
