"""`workloom sweep` from command line to page: equal to single runs, resumable, and honest about points that fail."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from test_report import MEASURE, Parsed, opened

from workloom.answers.sweep import carry
from workloom.answers.sweep.carry import Ended, Job, fault_of
from workloom.answers.sweep.history import attempts
from workloom.answers.sweep.points import Point, Setting
from workloom.answers.trial import again
from workloom.cli import app, main
from workloom.cli.prepare import Asked
from workloom.cli.sweep_points import check
from workloom.clock import host
from workloom.errors import UsageError, WorkloomError
from workloom.metrics.estimate import estimate
from workloom.metrics.figure import figure
from workloom.session import Call, Edge, Header, Inherit, Part, Session, Span
from workloom.store import open_run
from workloom.traces import native

ENGINE = ("--engine", "llama-3.1-8b-h200x1")
TABLES = ("calls.parquet", "sessions.parquet", "server.parquet", "plan.json")


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    """12 chains of 3 to 5 calls; one call is of 9,000 tokens."""
    path = tmp_path_factory.mktemp("trace") / "chains.jsonl"
    native.write(path, Header(source="test"), [chain(i) for i in range(12)])
    return str(path)


def chain(number: int) -> Session:
    calls = [
        Call(
            f"c{i}",
            20 + number % 5,
            after=(Edge(f"c{i - 1}", 0.5, "tool"),) if i else (),
            inherit=Inherit(f"c{i - 1}") if i else None,
            spans=() if i else (Span("tools", 400, "trace"),),
            fresh=(Part("user", 9000 if number == 7 and i == 2 else 200 + 10 * number),),
        )
        for i in range(3 + number % 3)
    ]
    return Session(f"s{number}", tuple(calls))


class InProcess:
    """Runs points in this process, as `workloom run` would in one of its own."""

    started: ClassVar[list[str]] = []

    def run(self, job: Job) -> Ended:
        self.started.append(job.name)
        began, at_s, code, error = host.stamp(), host.monotonic(), 0, ""
        try:
            with redirect_stdout(io.StringIO()):
                app(list(job.argv), exit_on_error=False, print_error=False, result_action="return_value")
        except WorkloomError as fault:
            code, error = 1, str(fault)
        except SystemExit as end:
            assert isinstance(end.code, int)
            code, error = end.code, f"it ended with {end.code}"
        return Ended(code, error, began, host.monotonic() - at_s)

    def interrupt(self) -> None:
        raise AssertionError("nobody interrupts here")


@dataclass
class Swept:
    """What a command came to."""

    code: int
    out: str
    err: str
    ran: list[str]
    """Points that were started by it."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(json.loads(self.out)["rows"])


Sweep = Callable[..., Swept]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sweep:
    """`sweep(*words, code=0)`: the command, its points run in this process, in the directory `sweep` or at `path`."""
    monkeypatch.setattr(carry, "Processes", InProcess)

    def go(*words: str, code: int = 0, path: Path = tmp_path / "sweep") -> Swept:
        InProcess.started.clear()
        monkeypatch.setattr(sys, "argv", ["workloom", "sweep", *words, "-o", str(path), "--jobs", "1"])
        capsys.readouterr()
        ended = 0
        try:
            main()
        except SystemExit as end:
            ended = int(end.code or 0)
        streams = capsys.readouterr()
        assert ended == code, streams.err
        return Swept(ended, streams.out, streams.err, list(InProcess.started))

    return go


@dataclass
class Kept:
    """A sweep that was run, of which more can be asked without running anything."""

    words: tuple[str, ...]
    path: Path


@pytest.fixture(scope="module")
def kept(trace: str, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Two engines by two concurrencies, and what is asked of them by no test."""
    path = tmp_path_factory.mktemp("kept") / "sweep"
    varied = ("--vary", "engine=llama-3.1-8b-h200x1,qwen3-30b-a3b-h200x1", "--vary", "concurrency=2,6")
    words = (trace, "--kv-tokens", "20000", *varied)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
        patch.setattr(carry, "Processes", InProcess)
        argv = ["sweep", *words, "--figure", "errors", "--jobs", "1", "-o", str(path)]
        app(argv, exit_on_error=False, print_error=False, result_action="return_value")
    return Kept(words, path)


# -- what comes out


def test_a_point_is_the_run_that_its_options_say(kept: Kept, trace: str, tmp_path: Path) -> None:
    names = [
        f"engine-{e},concurrency-{c},seed-0" for e in ("llama-3.1-8b-h200x1", "qwen3-30b-a3b-h200x1") for c in (2, 6)
    ]
    assert sorted(names) == sorted(each.parent.name for each in kept.path.glob("*/manifest.json"))
    argv = ["run", trace, *ENGINE, "--concurrency", "6", "--kv-tokens", "20000", "-o", str(tmp_path / "single")]
    with redirect_stdout(io.StringIO()):
        app(argv, exit_on_error=False, print_error=False, result_action="return_value")
    for table in TABLES:
        assert (tmp_path / "single" / table).read_bytes() == (kept.path / names[1] / table).read_bytes(), table


def test_the_table_says_what_the_runs_say_and_the_front_is_that_of_its_axes(sweep: Sweep, kept: Kept) -> None:
    asked = ("--figure", "ttft_p50", "--figure", "errors", "--x", "ttft_p50", "--y", "output_tokens_per_s")
    words = (*kept.words, *asked, "--slo", "ttft_p50<=10s", "--slo", "e2e_p50<=1us", "--slo-judge", "point")
    swept = sweep(*words, "--json", path=kept.path)
    assert swept.ran == []
    for row in swept.rows:
        run = again(kept.path / row["directories"][0])
        for name in ("ttft_p50", "errors", "output_tokens_per_s"):
            own, told = estimate(run, figure(name)), row["figures"][name]["estimate"]
            assert (told["value"], told["low"], told["high"]) == (own.value, own.low, own.high)
        assert [each["verdict"] for each in row["judgements"]] == ["pass", "fail"]
        assert row["verdict"] == "fail"
    points = [
        [row["figures"][f]["estimate"]["value"] for f in ("ttft_p50", "output_tokens_per_s")] for row in swept.rows
    ]
    beaten = [any(x <= mine[0] and y >= mine[1] and [x, y] != mine for x, y in points) for mine in points]
    assert json.loads(swept.out)["front"] == [not each for each in beaten]
    lines = list(csv.DictReader(io.StringIO(sweep(*words, "--csv", path=kept.path).out)))
    assert [float(line["ttft_p50"]) for line in lines] == [x for x, _ in points]
    assert [line["concurrency"] for line in lines] == ["2", "6", "2", "6"]
    table = sweep(*words, path=kept.path).out
    assert "TTFT p50" in table and "4 points" in table and "fail: e2e_p50<=1us" in table


def test_several_seeds_are_runs_of_their_own_and_their_spread_is_told(sweep: Sweep, trace: str, tmp_path: Path) -> None:
    words = (trace, *ENGINE, "--vary", "rate=4", "--seed", "5", "--seeds", "3", "--figure", "ttft_p50")
    swept = sweep(*words, "--json")
    assert len(swept.ran) == 3
    for row in swept.rows:
        paths = [tmp_path / "sweep" / name for name in row["directories"]]
        assert [open_run(path).manifest.seed for path in paths] == [5, 6, 7]
        values = [estimate(again(path), figure("ttft_p50")).value for path in paths]
        told = row["figures"]["ttft_p50"]
        assert (row["asked"], row["runs"]) == (3, 3)
        known = [value for value in values if value is not None]
        assert (told["least"], told["most"]) == (min(known), max(known))
        assert told["estimate"]["value"] == pytest.approx(sum(known) / 3)
    assert "Least and most of the seeds" in sweep(*words).out


def test_a_list_says_points_that_are_no_grid_and_wins_over_the_command(
    sweep: Sweep, trace: str, tmp_path: Path
) -> None:
    (tmp_path / "points.yaml").write_text("- {concurrency: 2}\n- {rate: 3, concurrency: null, prefix-cache: 'off'}\n")
    swept = sweep(trace, *ENGINE, "--concurrency", "9", "--list", str(tmp_path / "points.yaml"), "--json")
    loads = [open_run(tmp_path / "sweep" / row["directories"][0]).manifest for row in swept.rows]
    assert [manifest.load for manifest in loads] == ["2 sessions at once", "3 sessions/s, poisson"]
    assert [manifest.config["prefix_cache"] for manifest in loads] == [True, False]


def test_a_point_asks_for_what_its_whole_command_line_says(trace: str, tmp_path: Path) -> None:
    """Settings are parsed one by one; together they must be what `workloom run` makes of all of them."""
    given = ["--max-wait", "inf", "--until", "ttft_p50±9%", "--priority", "main=0", "--priority", "sub=1"]
    _, base, _ = app.parse_args(["run", trace, *given, *ENGINE], exit_on_error=False, print_error=False)
    asked = Asked(**base.arguments)
    settings = [
        (("rate", "0.5"), ("per", "request"), ("policy", "priority"), ("share-scaffold", "true"), ("ttl", "1e-3")),
        (("engine", "llama-3.1-70b-h200x4"), ("priority", "sub=-7"), ("max-wait",), ("start", "0.1-0.5:index")),
    ]
    points = [Point(tuple(Setting(name, tuple(values)) for name, *values in each), 3) for each in settings]
    with pytest.raises(UsageError, match="--priority: an option stands alone"):
        check(points, ["a", "b"], asked, tmp_path)
    for each in check(points[:1], ["a"], asked, tmp_path):
        _, whole, _ = app.parse_args(each.argv, exit_on_error=False, print_error=False)
        assert each.asked == Asked(**{name: value for name, value in whole.arguments.items() if name != "out"})
        assert (each.asked.load.max_wait, each.asked.load.seed, each.asked.load.share_scaffold) == (math.inf, "3", True)
        assert each.asked.engine.priority == ["main=0", "sub=1"]


# -- going on


def test_the_same_command_runs_nothing_again_and_new_points_are_added(sweep: Sweep, trace: str, tmp_path: Path) -> None:
    words = (trace, *ENGINE, "--figure", "ttft_p50", "--json")
    first = sweep(*words, "--vary", "concurrency=2")
    again_ = sweep(*words, "--vary", "concurrency=2")
    assert (len(first.ran), again_.ran) == (1, [])
    assert first.rows == again_.rows
    more = sweep(*words, "--vary", "concurrency=2,8")
    assert more.ran == ["concurrency-8,seed-0"]
    kept = (tmp_path / "sweep/sweep.json").read_bytes()
    for change in (("--vary", "concurrency=2"), ("--vary", "concurrency=2,8", "--max-wait", "0")):
        other = sweep(*words, *change, code=2)
        assert "another sweep" in other.err and other.ran == []
    assert "no longer asked for: concurrency-8,seed-0" in sweep(*words, "--vary", "concurrency=2", code=2).err
    assert (tmp_path / "sweep/sweep.json").read_bytes() == kept


def test_a_point_that_was_killed_is_made_again_and_what_it_left_is_kept(
    sweep: Sweep, kept: Kept, tmp_path: Path
) -> None:
    name, path = "engine-llama-3.1-8b-h200x1,concurrency-6,seed-0", tmp_path / "sweep"
    shutil.copytree(kept.path, path)
    manifest = json.loads((path / name / "manifest.json").read_text())
    (path / name / "manifest.json").write_text(json.dumps({**manifest, "status": "killed"}))
    with (path / "points.jsonl").open("ab") as history:
        history.write(b'{"point":"engine-lla')
    words = (*kept.words, "--figure", "ttft_p50", "--json")
    resumed = sweep(*words)
    assert resumed.ran == [name]
    assert resumed.rows == sweep(*words, path=kept.path).rows
    assert (path / "aside" / f"{name}-1" / "calls.parquet").exists()
    assert sweep(*words).ran == []


def test_a_point_that_fails_is_a_row_and_the_others_go_on(sweep: Sweep, trace: str, tmp_path: Path) -> None:
    words = (trace, *ENGINE, "--context-policy", "refuse", "--vary", "max-context=20000,2000")
    failing = sweep(*words, "--json", code=1)
    assert len(failing.ran) == 2
    assert [row["runs"] for row in failing.rows] == [1, 0]
    assert "2000" in failing.rows[1]["error"] and not failing.rows[1]["figures"]
    assert "1 of 2 runs failed" in failing.err
    assert json.loads(failing.out)["front"][1] is False
    repeated = sweep(*words, "--json", code=1)
    assert repeated.ran == ["max-context-2000,seed-0"], "only what failed is tried again"
    became = [each.became for each in attempts(tmp_path / "sweep")]
    assert became == ["finished", "failed", "failed"]


# -- what is refused before anything runs


def test_all_faults_of_all_points_are_told_and_nothing_is_left_behind(sweep: Sweep, trace: str, tmp_path: Path) -> None:
    varied = ("engin=a,b", "concurrency=1,2.5", "per=request,foo", "share-scaffold=true,perhaps", "out=a,b", "ttl=x")
    told = sweep(trace, *[word for each in varied for word in ("--vary", each)], code=2)
    for fault in ("engin; did you mean engine?", "2.5", '"foo"', "a switch: true or false", "out cannot be", "ttl"):
        assert fault in told.err
    assert told.ran == [] and not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--vary", "engine=llama-3.1-8b-h200x1,llama-9b"), "no engine profile called llama-9b"),
        (("--vary", "concurrency=0,1", *ENGINE), "concurrency must be 1 or more"),
        (("--vary", "concurrency=1,2"), "where to run is missing"),
        (("--vary", "concurrency=1,2", *ENGINE, "--concurrency", "3"), "both varied and given"),
        (("--vary", "concurrency=1,1", *ENGINE), "more than once"),
        (("--vary", "rate=1,2", "--vary", "rate=3", *ENGINE), "varied twice"),
        (("--vary", "rate=1,2", "--vary", "seed=1", "--zip", *ENGINE), "equally many"),
        (("--vary", "seed=1,2", "--seeds", "2", *ENGINE), "seeds are said twice"),
        (("--vary", "rate=1,2", "--seed", "random", *ENGINE), "can be said again"),
        (("--vary", "rate=1,2", "--event-log", "log.jsonl", *ENGINE), "one file for several points"),
        (("--vary", "rate=1,2", "--figure", "ttft_p95x", *ENGINE), "no such metric"),
        (("--vary", "until=ttft_p95,ttft_p50±5%", "--rate", "1", *ENGINE), "how well a figure must be known"),
        (("--vary", "rate=1,2", "--slo", "ttft_p95<=5parsec", *ENGINE), "no figure in parsec"),
        (("--vary", "concurrency=1,2", "--url", "http://127.0.0.1:9/v1", "--salt", "7"), "earlier ones left"),
        (ENGINE, "what is varied is missing"),
    ],
)
def test_what_makes_no_sense_is_said_first(
    sweep: Sweep, trace: str, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    told = sweep(trace, *words, code=2)
    assert says in told.err
    assert told.ran == [] and not (tmp_path / "sweep").exists()


def test_a_directory_with_something_else_in_it_is_left_alone(sweep: Sweep, trace: str, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/mine").write_text("mine")
    told = sweep(trace, *ENGINE, "--vary", "rate=1,2", code=2)
    assert "directory of its own" in told.err and [each.name for each in (tmp_path / "sweep").iterdir()] == ["mine"]


def test_a_run_that_ended_at_its_cap_before_it_knew_enough_is_a_point_like_any(sweep: Sweep, trace: str) -> None:
    words = (trace, *ENGINE, "--concurrency", "2", "--sessions", "12", "--vary", "until=ttft_p95±1%,ttft_p50±1%")
    assert [row["error"] for row in sweep(*words, "--json").rows] == ["", ""]
    assert sweep(*words, "--json").ran == []


# -- how points are carried out


def test_live_points_run_alone_one_after_the_other_and_before_the_simulated_ones() -> None:
    going: set[str] = set()
    met: list[set[str]] = []
    lock, both = threading.Lock(), threading.Barrier(2, timeout=20)

    def run(job: Job) -> Ended:
        with lock:
            going.add(job.name)
            met.append(set(going))
        if not job.live:
            both.wait()  # two simulated ones are at work at once, or this fails
        with lock:
            going.remove(job.name)
        return Ended(0, "", "", 0.0)

    jobs = [Job(f"{kind}{i}", Path(), (), Path(), kind == "live") for i in range(2) for kind in ("simulated", "live")]
    order: list[str] = []
    assert carry.carry(jobs, 2, run, lambda job, end: order.append(job.name), lambda: None)
    assert order[:2] == ["live0", "live1"]
    assert met[:2] == [{"live0"}, {"live1"}]
    assert {len(each) for each in met[2:]} <= {1, 2} and sorted(order[2:]) == ["simulated0", "simulated1"]


@pytest.mark.parametrize(
    ("said", "code", "fault"),
    [
        ("plan x\nerror: no\n  where: there\nhint: do\n", 1, "no\n  where: there\nhint: do"),
        ("Traceback\nValueError: 7\n", 1, "ValueError: 7"),
        ("", 3, "exit status 3"),
        ("error: late", -9, "killed by signal 9 (SIGKILL)"),
    ],
)
def test_what_a_process_ended_with_is_told(said: str, code: int, fault: str) -> None:
    assert fault_of(said, code) == fault


def process(*words: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "workloom.cli", *words], **pipes)  # type: ignore[call-overload]


@pytest.fixture
def url() -> Iterator[str]:
    """`workloom serve` as a process."""
    with process("serve", *ENGINE, "--port", "0") as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        assert " at " in said, said
        yield said.split(" at ")[1].split(" ")[0]
        server.send_signal(signal.SIGINT)


def test_live_points_go_on_after_ctrl_c_and_hit_nothing_that_an_earlier_one_left_in_the_cache(
    tmp_path: Path, url: str
) -> None:
    trace, path = tmp_path / "short.jsonl", tmp_path / "live"
    native.write(trace, Header(source="test"), [chain(i) for i in range(3)])
    options = ("--max-wait", "0.01", "--url", url, "--model", "any", "--metrics", "off", "--header", "X-Key: hunter22")
    words = ("sweep", str(trace), "--vary", "concurrency=1,2", *options, "--json", "-o", str(path))
    with process(*words) as first:
        assert first.stderr is not None
        said = first.stderr.readline() + first.stderr.readline()
        assert "nothing is told per GPU" in said and "[1/2]" in said
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=60)
        assert first.returncode == 130, err
    assert [row["runs"] for row in json.loads(out)["rows"]] == [1, 0]
    assert "goes on from here" in err
    assert next(each.became for each in attempts(path)) == "finished"
    with process(*words) as second:
        out, err = second.communicate(timeout=60)
        assert second.returncode == 0, err
    assert "1 of 2 runs are there already" in err
    for row in json.loads(out)["rows"]:
        run = open_run(path / row["directories"][0])
        assert run.manifest.backend == "http"
        calls = list(run.calls())
        assert all(call.status == "ok" for call in calls)
        earliest = min(calls, key=lambda call: call.sent_ns or 0)
        assert (earliest.cached_tokens or 0) < 32, "not even the scaffold is there, for its words are others"
        assert any((call.cached_tokens or 0) > 400 for call in calls), "within a run histories are hit"
    kept = "".join((path / name).read_text() for name in ("sweep.json", "points.jsonl", "report.html"))
    assert "hunter22" not in kept + said + out + err


# -- the page


@pytest.mark.parametrize("width", [500, pytest.param(1280, marks=pytest.mark.long)])
def test_a_browser_draws_the_page_and_no_text_is_cut_or_overlaps(
    sweep: Sweep, kept: Kept, tmp_path: Path, width: int
) -> None:
    swept = sweep(*kept.words, "--figure", "ttft_p50", "--figure", "hit_rate", "--json", path=kept.path)
    page = (kept.path / "report.html").read_text("utf-8")
    assert "default-src 'none'" in page
    (shown,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page)
    drawn = json.loads(shown)[0]
    assert [each["name"] for each in drawn["series"]] == ["llama-3.1-8b-h200x1", "qwen3-30b-a3b-h200x1"]
    pale = [each for series in drawn["series"] for each in series["pale"]]
    assert pale == [not each for each in json.loads(swept.out)["front"]]
    html = re.sub("<meta http-equiv[^>]*>", "", page).replace("</body>", MEASURE)
    (body,) = Parsed(opened(html, tmp_path, width)).of("body")
    seen = json.loads(body)
    assert not seen["wide"] and len(seen["told"]) == 3
    for chart in seen["told"]:
        assert chart["svg"] == 1 and not chart["out"] and not chart["touch"], chart
