"""`characterize` as a page and as tables: sentences that say what the numbers are, and no false zeros."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from handmade import call, session, thread
from hypothesis import HealthCheck, given, settings
from strategies import sessions, workload
from test_report import MEASURE, Parsed, opened

from workloom.answers.characterize import Characterization, characterize
from workloom.cli import main
from workloom.cli.characterize import labels
from workloom.model.critical import KINDS
from workloom.model.distribution import SHARES
from workloom.model.instability import FIELDS
from workloom.model.motifs import MOTIFS
from workloom.model.roles import MEASURES
from workloom.plan import Closed, Recipe, TraceRef
from workloom.report.page import Section
from workloom.report.study import QUESTIONS, brief, instability, report, roles, shapes, study, time_charts
from workloom.report.study.words import PEOPLE, lead, listed, said, say, side
from workloom.report.table import Table
from workloom.session import Header, Part, Session
from workloom.traces import open_trace
from workloom.traces.reading import made

ROOT = Path(__file__).parent.parent
CANONICAL = str(ROOT / "src/workloom/data/canonical.jsonl")
WEKA = ROOT.parent / "shared/data/weka"
UNITS = {"", "s", "share", "tokens"}


def studied(label: str, sessions: Sequence[Session], header: Header | None = None) -> Characterization:
    reading = made(label, header or Header(), lambda: iter(sessions))
    return characterize(label, reading, Recipe(trace=TraceRef((label,)), load=Closed(2)))


def chain_and_fork() -> list[Session]:
    """66 s: 5 of inference, 1 of tools, 60 of a person. 8 s: all inference, and 3 s more beside the path."""
    chain = session(
        call("m1", fresh="user:100", out=10, at=(0, 2)),
        call("m2", "m1", inherit="m1", fresh="tool.Bash:40", out=10, at=(3, 5)),
        call("m3", "m2:human", inherit="m2", fresh="user:50", out=10, at=(65, 66), wait_s=60),
        name="chain",
    )
    fork = session(
        call("m1", fresh="user:100", out=10, at=(0, 2)),
        call("a1", "m1:spawn", agent="Explore:a", fresh="user:20", out=10, at=(2, 6), wait_s=0),
        call("b1", "m1:spawn", agent="Explore:b", fresh="user:20", out=10, at=(2, 5), wait_s=0),
        call("m2", "a1:none b1:none", inherit="m1", fresh="report:30", out=10, at=(6, 8), wait_s=0),
        name="fork",
    )
    return [chain, fork]


def single_call() -> list[Session]:
    return [session(call("c1", fresh="user:8", out=4))]


@pytest.fixture(scope="module")
def two() -> Characterization:
    return studied("two", chain_and_fork())


@pytest.fixture(scope="module")
def lone() -> Characterization:
    return studied("lone", single_call())


@pytest.fixture(scope="module")
def canonical() -> Characterization:
    reading = open_trace([CANONICAL])
    return characterize("canonical", reading, Recipe(trace=TraceRef((CANONICAL,)), load=Closed(8)))


def by_key(*found: Characterization) -> dict[str, Section]:
    return {section.key: section for section in study(found)}


def table(section: Section, title: str) -> Table:
    (one,) = [table for table in section.tables if table.title == title]
    return one


def row(of: Table, name: str) -> tuple[object, ...]:
    (one,) = [row for row in of.rows if row[0] == name]
    return one[1:]


def test_every_lead_says_what_the_numbers_are(two: Characterization) -> None:
    leads = {key: section.lead for key, section in by_key(two).items()}
    assert leads["shapes"] == (
        "Half of the sessions have at most 3.50 calls; the longest has 4. 50.0% branch; at most 2 calls can run side "
        "by side. One human message (or the start of a session) leads to 2.33 calls on average, 2 at the median. "
        "Subagents: 2, of which others wait for 2; the median one makes 1 call. Where there is a history, 76.0% of "
        "a prompt is inherited on average, and 100.0% of these calls keep all of the prompt before them."
    )
    assert leads["time"].startswith(
        "The sessions last 1.23 min in all; on their critical paths that is people 81.1%, inference 17.6% and tools "
        "1.4%. Without the time spent waiting for people, inference is 92.9%. The median session lasts 37.0 s; the "
        "median task 5.00 s. All inference adds up to 1.23 times what lies on the critical paths. No call tells when "
        "its first token came, so prefill and decode are not told apart. Start and end of every call are the trace's "
        "own."
    )
    assert leads["time"].endswith(PEOPLE)
    assert leads["reuse"].startswith(
        "Of all prompt tokens, a cache that never forgets would hold 51.4%. With 2 sessions at once, waits of at most "
        "60 s, LRU has 90% of these hits with room for 288 tokens. Nothing of that comes from beyond the session "
        "itself. Of their prompts, half of the calls that go on from another inherit at least 76.2%. With waits as "
        "recorded, half of the reused tokens are used again within 4.00 s; to keep KV after its last use for 1.00 min "
        "is enough for 90% of the hits."
    )
    assert leads["roles"].startswith(
        "By role: main leads latency (69.2%), cost (81.3%) and KV (85.9%). By model: no model is named. Over sessions: "
        "main makes 75.0% of a session's calls on average (cv 0.33). Cost is an assumption:"
    )
    assert leads["workflow"].startswith("The commonest pattern is main{3} (50.0% of the sessions).")
    assert leads["concurrency"].startswith(
        "Share of a session's time with a call in flight: 17.6%; with two or more: 4.1%."
    )


def test_what_is_beside_the_critical_path_is_drawn_and_told(two: Characterization) -> None:
    section = by_key(two)["time"]
    kinds = table(section, "Time by kind")
    assert [column.name for column in kinds.columns][:5] == [
        *("spent on", "on the path", "share", "without people", "off the path")
    ]
    assert row(kinds, "inference")[:4] == (13, 13 / 74, round(13 / 14, 9), 3)
    assert row(kinds, "people")[:4] == (60, 60 / 74, None, 0)
    (path, beside) = section.figures
    assert {series.name: series.y for series in path.series}["inference"] == (13 / 74, 13 / 14)
    assert {series.name: series.y for series in beside.series}["inference"] == (13 / 74, 3 / 74)


def test_traces_stand_side_by_side(two: Characterization, lone: Characterization) -> None:
    sections = by_key(two, lone)
    assert sections["shapes"].lead.startswith(
        "The median session has 3.50 calls (two) and 1 (lone). The share of sessions that branch is 50.0% (two) and "
        "0.0% (lone)."
    )
    for module in QUESTIONS:
        assert [column.name for column in module.key([two, lone]).columns][1:] == ["two", "lone"]
    assert row(shapes.key([two, lone]), "subagents") == ("2", "0")
    answers = sections["traces"].tables[0]
    assert "two: main leads latency (69.2%), cost (81.3%) and KV (85.9%); lone: one role, main" in str(answers.rows)
    for section in sections.values():
        for figure in section.figures:
            if figure.kind in ("line", "cdf", "band") or figure.key in ("motifs", "ideal", "events"):
                assert [series.name for series in figure.series] == ["two", "lone"], figure.key


def test_more_than_four_traces_work_too(two: Characterization, lone: Characterization) -> None:
    found = [msgspec.structs.replace(lone, label=f"lone {k}") for k in range(5)] + [two]
    sections = by_key(*found)
    assert sections["shapes"].lead.startswith("The median session has 3.50 calls (two) down to 1 (lone 4).")
    assert "; and so on for 2 more." in sections["time"].lead
    assert Parsed(report(found)).of("h1") == ["Workload study: lone 0, lone 1, lone 2, lone 3, lone 4 and two"]


def test_what_is_not_known_is_said_to_be_so_and_drawn_nowhere(lone: Characterization, two: Characterization) -> None:
    sections = by_key(lone)
    rates = instability.key([lone])
    assert row(rates, "failures") == ("not known",)
    assert row(rates, "retries") == (0.0,)
    assert row(rates, "prefill that is recomputation, %") == ("not known",)
    (reasons,) = [table for table in sections["instability"].tables if table.title == "Not known"]
    assert row(reasons, "human corrections") == ("they follow aborts, which the trace does not tell",)
    assert sections["instability"].figures == ()
    assert sections["arrivals"].lead.startswith("When sessions arrive is not known, for want of a common clock")
    assert sections["arrivals"].figures == () and sections["concurrency"].figures == ()
    assert "Whether tools give the same results again is not known" in sections["reuse"].lead
    assert "the others are assumed to prefill at 10,000 tokens/s" in sections["time"].lead
    assert sections["waits"].lead == "No call waits for another."
    shared = by_key(lone, two)["instability"]
    (reasons,) = [table for table in shared.tables if table.title == "Not known"]
    assert row(reasons, "aborts")[1] == "lone and two"


def test_repeated_results_of_tools_are_told_where_texts_were_kept() -> None:
    def asked(name: str, before: str) -> Session:
        told = [Part("tool", 30, "Read", text="the same")]
        return session(call("m1", fresh="user:10"), call("m2", "m1", inherit="m1", fresh=told), name=name)

    section = by_key(studied("kept", [asked("x", ""), asked("y", "")]))["reuse"]
    assert section.lead.endswith("those that repeat an earlier result to the letter are 50.0%.")
    assert table(section, "Results of tools").rows == ((2, 60, 1, 30, 0, 0, 0, 0),)


def test_a_coarse_clock_is_told() -> None:
    def begun(k: int) -> Session:
        return Session(f"s{k}", (call("m1", fresh="user:9"),), start_s=3.0 * (k // 4))

    section = by_key(studied("ticks", [begun(k) for k in range(200)], Header(common_clock=True)))["arrivals"]
    assert (
        "The clock of ticks is coarse: 75.4% of the gaps between sessions are 0 and the next is 3.00 s" in section.lead
    )
    assert [figure.key for figure in section.figures] == [], "every window that fits is too short for that clock"


def test_a_sentence_names_the_ends_of_many_and_drops_what_nobody_knows(
    two: Characterization, lone: Characterization
) -> None:
    three = [two, lone, msgspec.structs.replace(lone, label="third")]
    sizes = {"two": 12_345.0, "lone": 9.0, "third": None}
    assert side(three, lambda c: sizes[c.label], "tokens", "token") == "12.3k tokens (two) and 9 (lone)"
    assert side(three, lambda c: {"two": 1.0}.get(c.label, 0.5), "share") == "100.0% (two) down to 50.0% (third)"
    assert side(three, lambda c: 1.0, noun="call") == "1 call"
    assert side(three, lambda c: 1.0 if c.label == "two" else None, noun="call") == "1 call (two)"
    assert side(three, lambda c: None) == "" == say("It is ", side(three, lambda c: None), ".")
    assert side([two], lambda c: 2.5, noun="call") == "2.50 calls"
    assert [listed([]), listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert [said(9_999, "tokens"), said(10_000, "tokens"), said(999_960, "tokens")] == ["9,999", "10k", "1.00M"]
    assert lead("One.", "", "Two.") == "One. Two."


def test_few_values_are_no_curve_but_equal_ones_are_a_step() -> None:
    assert [1 - share for share in reversed(SHARES)] == pytest.approx(SHARES), "what the chart of overlaps turns on"
    pairs = studied("pairs", chain_and_fork())
    alike = studied("alike", [msgspec.structs.replace(one, id=f"{k}") for k in range(2) for one in single_call()])
    many = studied("many", [session(*thread("a b c d e f"[: 2 * k + 1]), name=f"{k}") for k in range(6)])
    (figure,) = [one for one in by_key(pairs, alike, many)["shapes"].figures if one.key == "calls-per-session"]
    assert [len(series.x) for series in figure.series] == [0, len(SHARES), len(SHARES)]
    assert figure.note == "Medians: 3.50 (pairs) down to 1 (alike). Too few values for a curve: pairs."


def test_every_kind_of_thing_has_a_name() -> None:
    assert list(shapes.MOTIF_NAMES) == list(MOTIFS)
    assert list(instability.KINDS) == list(FIELDS)
    assert tuple(roles.MEASURE_NAMES) == MEASURES
    assert tuple(time_charts.KIND_NAMES) == KINDS


def drawn(found: Sequence[Characterization]) -> None:
    """Every chart has axes with labels and units, a caption, and numbers to draw."""
    for section in study(found):
        for figure in section.figures:
            axes = [figure.x, figure.y, *([figure.value] if figure.value else [])]
            assert all(axis.label and axis.unit in UNITS for axis in axes), figure.key
            for axis in axes:
                assert axis.unit or not re.search("token|wait|makespan|window|capacity|kept", axis.label), figure.key
            assert figure.note.endswith(".") and figure.question.endswith("?"), figure.key
            assert any(y is not None for series in figure.series for y in series.y), figure.key
        assert all(table.rows for table in section.tables), section.key


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(workload(), sessions(recorded=True, stop_after=True).map(lambda one: [one]))
def test_any_workload_makes_a_page_without_empty_charts(one: list[Session], other: list[Session]) -> None:
    found = [studied("one", one), studied("other", other)]
    drawn(found[:1])
    drawn(found)
    Parsed(report(found))


def test_the_terminal_gets_the_key_numbers_of_every_question(canonical: Characterization) -> None:
    sections = brief([canonical])
    assert [section.title.split(":")[0] for section in sections] == [
        *("Traces", "Graph shapes", "Where the time goes", "Reuse", "Instability", "Roles and models")
    ]
    assert sum(len(section.tables[0].rows) + 4 for section in sections) <= 85


# ---- the command


def workloom(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["workloom", *argv])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_json_holds_all_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], canonical: Characterization
) -> None:
    assert workloom(monkeypatch, "characterize", CANONICAL, "--json") == 0
    streams = capsys.readouterr()
    assert msgspec.json.decode(streams.out, type=list[Characterization]) == [canonical]
    assert streams.err == "canonical: 20 sessions, 696 calls\n"


def test_the_page_is_written_once_and_equal_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], canonical: Characterization
) -> None:
    out = tmp_path / "report.html"
    assert workloom(monkeypatch, "characterize", CANONICAL, "-o", str(out)) == 0
    streams = capsys.readouterr()
    assert "96.9%" in streams.out and len(streams.out.splitlines()) <= 85
    assert f"report written to {out}" in streams.err
    code = "import sys; from workloom.cli import main; main()"
    again = tmp_path / "again.html"
    argv = [sys.executable, "-c", code, "characterize", CANONICAL, "-o", str(again)]
    subprocess.run(argv, env={**os.environ, "PYTHONHASHSEED": "7"}, check=True, capture_output=True)
    assert again.read_bytes() == out.read_bytes()
    parsed = Parsed(out.read_text("utf-8"))
    (embedded,) = parsed.of("script", id="figures")
    figures = json.loads(embedded)
    assert len(figures) == sum(len(section.figures) for section in study([canonical])) >= 20
    assert all(figure["x"]["label"] and figure["y"]["label"] for figure in figures)
    drawn([canonical])
    before = out.stat().st_mtime_ns
    assert workloom(monkeypatch, "characterize", CANONICAL, "-o", str(out)) == 2
    assert "the report is there already" in capsys.readouterr().err
    assert out.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ([], 2, "TRACE"),
        (["nothing-here"], 1, "hint"),
        (["coding-agnt"], 1, "did you mean the workload coding-agent?"),
        (["1k1k", "--generate", "0"], 2, "at least one session"),
        (["1k1k", "--block-tokens", "0"], 2, "--block-tokens"),
        (["1k1k", "--block-tokens", "2.5"], 2, "--block-tokens"),
        ([CANONICAL, "--replay"], 1, "--concurrency N or --rate R"),
        (["1k1k", "-o", "no-such-folder/report.html"], 2, "no such folder"),
    ],
)
def test_bad_input_gets_one_error_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert workloom(monkeypatch, "characterize", *argv) == code
    streams = capsys.readouterr()
    assert said in streams.err and streams.err.count("error: ") == 1
    assert streams.out == "" and os.listdir(tmp_path) == []


def test_ctrl_c_leaves_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> Characterization:
        raise KeyboardInterrupt

    monkeypatch.setattr("workloom.cli.characterize.study", interrupted)
    assert workloom(monkeypatch, "characterize", CANONICAL, "-o", str(tmp_path / "page.html")) == 130
    assert capsys.readouterr().err == "interrupted\n" and os.listdir(tmp_path) == []


def test_a_rate_of_requests_becomes_one_of_sessions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--generate", "4", "--rate", "30", "--per", "request", "--seed", "random", "--json"]
    assert workloom(monkeypatch, "characterize", "cs2-dag", "cs2-linear", *argv) == 0
    dag, chain = msgspec.json.decode(capsys.readouterr().out, type=list[Characterization])
    assert (dag.reuse.capacity.load, chain.reuse.capacity.load) == ("2 sessions/s, poisson", "6 sessions/s, poisson")
    seeds = {found.plan.split("seed ")[1] for found in (dag, chain)}
    assert len(seeds) == 1, "both have the seed that was drawn"
    assert dag.report.sessions == chain.report.sessions == 4


def test_labels_are_short_and_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weka.v2").mkdir()
    assert labels(["weka.v2", "x/trace.jsonl.zst", "chat"]) == ["weka.v2", "trace", "chat"]
    assert labels(["a/trace.jsonl", "b/trace.jsonl", "b/trace.jsonl"]) == ["a/trace", "b/trace", "b/trace (2)"]
    assert labels(["."]) == [tmp_path.name]


# ---- the documents, and real data


def test_the_document_explains_every_number() -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts/make_study_docs.py"), "--check"], check=True)


def test_the_document_names_all_that_stands_in_the_key_tables(canonical: Characterization) -> None:
    page = (ROOT / "docs/characterize.md").read_text()
    for module in QUESTIONS:
        assert f"### {module.TITLE}" in page
        for name, *_ in module.key([canonical]).rows:
            assert str(name) in page
    for kind in instability.KINDS.values():
        rule = kind.rule[:1].lower() + kind.rule[1:].rstrip(".")
        assert rule in page
    for section in study([canonical])[6:]:
        assert f"| {section.title} |" in page


def test_the_study_of_a_real_trace_says_what_counting_says() -> None:
    if not WEKA.exists():
        pytest.skip(f"{WEKA} is absent")
    paths = sorted(map(str, WEKA.glob("*.json")))[:12]
    found = characterize("weka", open_trace(paths), Recipe(trace=TraceRef(tuple(paths)), load=Closed(8)))
    sessions = list(open_trace(paths))
    longest = max(len(one.calls) for one in sessions)
    lead = by_key(found)["shapes"].lead
    assert f"the longest has {longest}." in lead
    spawned = sum(any(edge.gap == "spawn" for edge in call.after) for one in sessions for call in one.calls)
    assert f"Subagents: {spawned}, of which" in lead
    drawn([found])


@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_draws_the_study_and_no_text_is_cut_or_overlaps(
    tmp_path: Path, canonical: Characterization, two: Characterization, lone: Characterization, width: int
) -> None:
    found = [canonical, two, lone]
    html = re.sub("<meta http-equiv[^>]*>", "", report(found)).replace("</body>", MEASURE)
    (body,) = Parsed(opened(html, tmp_path, width)).of("body")
    seen = json.loads(body)
    assert not seen["wide"]
    assert len(seen["told"]) == sum(len(section.figures) for section in study(found))
    for chart in seen["told"]:
        assert chart["svg"] == 1 and not chart["out"] and not chart["touch"], chart
