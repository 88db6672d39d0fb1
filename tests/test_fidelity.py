"""`fidelity`: what is alike is called alike, what is not is not, and too little is called too little."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from workloom.answers.fidelity import Ask, Fidelity, fidelity, runs
from workloom.answers.fidelity.line import judge, worse
from workloom.cli import main
from workloom.engine import profile as engines
from workloom.errors import UsageError
from workloom.model.families import Exponential, Fixed, Lognormal, Uniform
from workloom.model.workload.file import dump
from workloom.model.workload.opening import drawn, open_sessions
from workloom.model.workload.spec import Agent, First, Turn, Workload
from workloom.session import Header, Session
from workloom.traces import Reading, native
from workloom.traces.reading import made

ROOT = Path(__file__).parent.parent
SHARED = ROOT / "../shared/data"
NO_SHARED = "the real traces are in ../shared/data, which is not there"
sys.path.insert(0, str(ROOT / "scripts"))


def workload(
    output: float = 60, wait: float = 3.0, calls: tuple[float, float] = (3, 12), rank: float = 0.5
) -> Workload:
    turn = Turn(
        fresh=Lognormal(median=120, sigma=0.8),
        output=Lognormal(median=output, sigma=0.5),
        wait=Exponential(mean=wait),
        ranks={"fresh output": rank},
    )
    first = First(fresh=Lognormal(median=900, sigma=0.4), output=Fixed(60))
    agent = Agent(first=first, calls=Uniform(low=calls[0], high=calls[1]), turns={"tool": turn})
    return Workload(agents={"main": agent}, name="small")


def ask() -> Ask:
    return Ask(engines.load("llama-3.1-8b-h200x1"), concurrency=3, rounds=60, block_tokens=16)


def verdicts(found: Fidelity) -> dict[str, str]:
    return {line.name: line.verdict for line in found.lines}


@pytest.fixture(scope="module")
def same() -> Fidelity:
    return fidelity(drawn(workload(), 1, 40), drawn(workload(), 2, 80), ask())


def test_two_draws_of_one_workload_are_alike(same: Fidelity) -> None:
    said = verdicts(same)
    assert "wait for humans" not in said, "neither has any"
    assert "differs" not in said.values(), said
    assert list(said.values()).count("alike") >= 14
    assert [line.name for line in same.lines if not line.in_band] == []


def test_the_rule() -> None:
    assert judge(0.05, 0.1, 0.5, 100) == "alike", "near enough, however far halves may be"
    assert judge(0.2, 0.1, 0.15, 100) == "differs", "farther than halves are"
    assert judge(0.2, 0.1, 0.3, 100) == "not enough data", "halves of one trace are as far"
    assert judge(0.2, 0.1, 0.3, 100, p=0.01) == "differs", "but whole sessions exchanged are not"
    assert judge(0.2, 0.1, None, 100) == "not enough data", "nobody knows how far halves are"
    assert judge(0.2, 0.1, 0.15, 7) == judge(0.0, 0.1, 0.15, 7) == "not enough data"
    assert worse("alike", "not enough data") == "not enough data"
    assert worse("differs", "not enough data") == "differs"


def test_every_way_of_being_different_is_told_by_its_line() -> None:
    found = verdicts(fidelity(drawn(workload(), 1, 40), drawn(workload(output=110), 2, 80), ask()))
    assert found["output"] == "differs" and found["E2E p95"] == "differs"
    assert found["calls per session"] == "alike" and found["wait for tools"] == "alike"
    found = verdicts(fidelity(drawn(workload(), 1, 40), drawn(workload(calls=(10, 30), wait=9.0), 2, 80), ask()))
    for name in ("calls per session", "depth", "calls per task", "longest prompt", "wait for tools", "prompt"):
        assert found[name] == "differs", name
    found = verdicts(fidelity(drawn(workload(), 1, 40), drawn(workload(rank=-0.5), 2, 80), ask()))
    assert found["fresh and output"] == "differs"


def test_too_few_sessions_prove_nothing() -> None:
    found = fidelity(drawn(workload(), 1, 4), drawn(workload(output=400), 2, 80), ask())
    assert set(verdicts(found).values()) == {"not enough data"}


def test_an_empty_trace_is_an_error() -> None:
    empty = made("none", Header(), lambda: iter(()))
    with pytest.raises(UsageError, match="the real trace holds no session"):
        fidelity(empty, drawn(workload(), 1, 4), ask())
    with pytest.raises(UsageError, match="the other trace holds no session"):
        fidelity(drawn(workload(), 1, 4), empty, ask())


def test_equal_seeds_give_equal_bytes(same: Fidelity) -> None:
    again = fidelity(drawn(workload(), 1, 40), drawn(workload(), 2, 80), ask())
    assert msgspec.json.encode(again) == msgspec.json.encode(same)


def test_recorded_instants_of_one_side_change_nothing(same: Fidelity) -> None:
    """A real trace has them and a synthetic one has not: both have to run at nominal speed."""
    from msgspec.structs import replace

    from workloom.session import Recorded

    def slow() -> Iterator[Session]:
        for session in drawn(workload(), 1, 40):
            calls = (replace(call, recorded=Recorded(start_s=0.0, end_s=500.0)) for call in session.calls)
            yield replace(session, calls=tuple(calls))

    found = fidelity(made("slow", Header(), slow), drawn(workload(), 2, 80), ask())
    assert verdicts(found) == verdicts(same)
    assert found.curves == same.curves


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    trace, file, page = tmp_path / "real.jsonl", tmp_path / "small.yaml", tmp_path / "page.html"
    native.write(trace, Header(source="test"), drawn(workload(), 5, 20))
    file.write_text(dump(workload()))
    argv = ["workloom", "fidelity", str(trace), str(file), "--engine", "llama-3.1-8b-h200x1", "-o", str(page)]
    monkeypatch.setattr(sys, "argv", argv)
    main()
    said = " ".join(capsys.readouterr().out.split())
    assert "comparisons of small with real are alike" in said
    assert "20 and 160 sessions" in said, "eight times as many are made as are real"
    assert "<table" in page.read_text()
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "the report is there already" in capsys.readouterr().err


def test_calls_that_the_engine_has_no_room_for_are_told() -> None:
    from msgspec.structs import replace

    small = replace(ask(), profile=replace(engines.load("llama-3.1-8b-h200x1"), max_model_len=1500))
    found = fidelity(drawn(workload(), 1, 20), drawn(workload(), 2, 40), small)
    assert all(0.2 < share < 0.95 for share in found.left_out)
    curve = next(line for line in found.lines if line.group == "cache")
    whole = next(
        line
        for line in fidelity(drawn(workload(), 1, 20), drawn(workload(), 2, 40), ask()).lines
        if line.group == "cache"
    )
    assert curve.real == whole.real, "the curve is of all calls"


@pytest.mark.parametrize("pair", [("1k1k", "8k1k"), ("1k1k", "1k1k"), ("cs2-dag", "bursty-probe")])
def test_workloads_without_reuse_or_variance_are_compared_too(pair: tuple[str, str]) -> None:
    real, other = (open_sessions([name], seed=seed, sessions=20) for seed, name in enumerate(pair))
    said = verdicts(fidelity(real, other, ask()))
    assert said["prompt"] == ("alike" if pair[0] == pair[1] else "differs")


def test_a_copy_of_a_session_is_no_second_session() -> None:
    def twice() -> Iterator[Session]:
        for session in drawn(workload(), 1, 20):
            yield session
            yield msgspec.structs.replace(session, id=session.id + "-copy")

    assert fidelity(made("twice", Header(), twice), drawn(workload(), 2, 40), ask()).real_sessions == 20


@pytest.mark.skipif(not SHARED.exists(), reason=NO_SHARED)
@pytest.mark.long
@pytest.mark.parametrize("whole", [False, True])
def test_coding_agent_is_like_the_files_it_was_not_fitted_to(monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    """Hit rate within 3 points and TTFT p95 within 15 % on one engine; whole: all lines within bands of random halves.

    Bands worth the name take half a minute of runs.
    """
    from make_workloads import weka_parts

    if not whole:
        monkeypatch.setattr(runs, "HALVINGS", 2)
        monkeypatch.setattr(runs, "GROUPS", 3)
    fitted_to, others = weka_parts(SHARED)
    header = Header(source="weka", block_tokens=64)

    def trace(sessions: list[Session]) -> Reading:
        return made("weka", header, lambda: iter(sessions))

    asked = Ask(engines.load("llama-3.1-70b-h200x4"))
    found = fidelity(trace(others), open_sessions(["coding-agent"], sessions=208), asked, trace(fitted_to + others))
    assert (found.real_sessions, found.other_sessions, found.band_sessions) == (26, 208, 51)
    assert not whole or [line for line in found.lines if not line.in_band or line.verdict == "differs"] == []
    lines = {line.name: line for line in found.lines}
    for name in ("hit rate", "TTFT p50", "TTFT p95", "fresh and output", "fresh and wait", "output and wait"):
        distance, tolerance = lines[name].distance, lines[name].tolerance
        assert distance is not None and tolerance is not None and distance <= tolerance, lines[name]
