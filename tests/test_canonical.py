"""The canonical workload: the committed file is what its script writes, and looks as the script says it does."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import quantiles

import msgspec
import pytest

import workloom
from workloom.session import Call, Header, Session, prompt_tokens, validate

FILE = Path(workloom.__file__).parent / "data/canonical.jsonl"
SCRIPT = Path(__file__).parent.parent / "scripts/make_canonical.py"


@pytest.fixture(scope="module")
def sessions() -> list[Session]:
    return [msgspec.json.decode(line, type=Session) for line in FILE.read_bytes().splitlines()[1:]]


def deciles(values: list[float]) -> tuple[float, float, float]:
    """p10, p50 and p90."""
    cut = quantiles(values, n=10, method="inclusive")
    return cut[0], cut[4], cut[8]


def previous(session: Session, call: Call) -> Call | None:
    """The same agent's call before this one."""
    mine = [other for other in session.calls if other.agent == call.agent]
    at = mine.index(call)
    return mine[at - 1] if at else None


def test_the_committed_file_is_what_the_script_writes(tmp_path: Path) -> None:
    again = tmp_path / "canonical.jsonl"
    subprocess.run([sys.executable, str(SCRIPT), str(again)], check=True, capture_output=True)
    assert again.read_bytes() == FILE.read_bytes()
    assert FILE.stat().st_size < 300_000


def test_it_is_a_native_trace_of_valid_sessions(sessions: list[Session]) -> None:
    header = msgspec.json.decode(FILE.read_bytes().splitlines()[0], type=Header)
    assert (header.format, header.version, header.common_clock) == ("workloom", 1, False)
    assert "make_canonical.py" in header.source
    for session in sessions:
        validate(session)
    assert len({session.id for session in sessions}) == len(sessions)


def test_its_shape(sessions: list[Session]) -> None:
    assert len(sessions) == 20
    assert sum(len(session.calls) for session in sessions) == 696
    main = [sum(call.agent == "main" for call in session.calls) for session in sessions]
    assert min(main) == 8
    assert max(main) == 59
    assert 24 <= sorted(main)[10] <= 32


def test_every_context_fits_131072_tokens_with_its_answer(sessions: list[Session]) -> None:
    longest = 0
    for session in sessions:
        prompts = prompt_tokens(session)
        longest = max(longest, *(prompts[call.id] + call.output_tokens for call in session.calls))
    assert 110_000 < longest < 125_000


def test_every_agent_begins_with_its_shared_scaffold(sessions: list[Session]) -> None:
    spans = Counter(
        (call.agent == "main", span.name, span.tokens, span.scope)
        for session in sessions
        for call in session.calls
        for span in call.spans
    )
    assert spans == {(True, "tools+system", 15_000, "trace"): 20, (False, "explore: tools+system", 6_000, "trace"): 11}


def test_subagents_are_spawned_together_and_joined(sessions: list[Session]) -> None:
    """Each subagent has a spawn edge in, and its last call an edge into the call that carries its report."""
    joins = []
    for session in sessions:
        by_id = {call.id: call for call in session.calls}
        for call in session.calls:
            reports = [part for part in call.fresh if part.kind == "report"]
            if not reports:
                continue
            assert call.inherit is not None
            assert {call.inherit.call, *(part.from_call for part in reports)} == {edge.call for edge in call.after}
            for part in reports:
                last = by_id[str(part.from_call)]
                assert part.tokens == last.output_tokens
                assert last.agent != call.agent
                first = next(other for other in session.calls if other.agent == last.agent)
                assert [(edge.call, edge.gap) for edge in first.after] == [(call.inherit.call, "spawn")]
                assert first.inherit is None
            joins.append((call.agent != "main", len(reports)))
    assert Counter(joins) == {(False, 1): 3, (False, 2): 2, (False, 3): 1, (True, 1): 1}
    requests = Counter((s.id, call.agent) for s in sessions for call in s.calls if call.agent != "main")
    assert len(requests) == 11
    assert 8 <= sum(requests.values()) / len(requests) <= 13  # published mean 10.7


def test_a_compaction_keeps_the_scaffold_and_a_summary(sessions: list[Session]) -> None:
    compactions = 0
    for session in sessions:
        prompts = prompt_tokens(session)
        for call in session.calls:
            if call.inherit is None or call.inherit.tokens is None:
                continue
            compactions += 1
            summariser = previous(session, call)
            assert summariser is not None
            assert call.inherit.tokens == 15_000
            assert call.fresh[0].kind == "summary"
            assert call.fresh[0].from_call == summariser.id
            assert call.fresh[0].tokens == summariser.output_tokens
            assert prompts[call.id] < prompts[summariser.id] / 2
    assert compactions == 2


def test_tokens_and_waits_are_near_the_published_quantiles(sessions: list[Session]) -> None:
    """p10, p50 and p90 of 710 recorded sessions, within a quarter; ours are 700 draws."""
    outputs, uncached, waits = [], [], []
    for session in sessions:
        prompts = prompt_tokens(session)
        for call in session.calls:
            outputs.append(float(call.output_tokens))
            before = previous(session, call)
            if before is not None:
                shared = prompts[before.id]
                if call.inherit is not None and call.inherit.tokens is not None:
                    shared = call.inherit.tokens
                uncached.append(float(prompts[call.id] - shared))
            if call.agent == "main" and call.after:
                waits.append(max(edge.wait_s for edge in call.after))
    assert deciles(outputs) == pytest.approx((105, 216, 899), rel=0.25)
    assert deciles(uncached) == pytest.approx((230, 705, 4077), rel=0.25)
    assert max(outputs) > 7000
    assert max(uncached) > 20_000
    assert deciles(waits)[1] == pytest.approx(10, rel=0.25)
    assert 0.15 < sum(wait > 60 for wait in waits) / len(waits) < 0.22  # published 18.8 %


def test_tools_answer_in_seconds_and_humans_in_minutes(sessions: list[Session]) -> None:
    waits: dict[str, list[float]] = {"tool": [], "human": []}
    for session in sessions:
        for call in session.calls:
            for edge in call.after:
                if edge.gap in waits:
                    waits[edge.gap].append(edge.wait_s)
    assert 3 < deciles(waits["tool"])[1] < 9
    assert 60 < deciles(waits["human"])[1] < 240
