"""Properties of critical paths, slack and what-ifs, on random DAGs, against plain loops over paths and calls."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workloom.metrics.frame import CANCELLED, CENSORED, ERROR, OK, Window
from workloom.metrics.measured import GAPS, Measured, measured_records
from workloom.metrics.workflow import depths, tasks, turns
from workloom.metrics.workflow.parts import PARTS, SERVER, Part
from workloom.metrics.workflow.path import check_adds_up, session_blame
from workloom.metrics.workflow.slack import slack_ns
from workloom.metrics.workflow.speedup import ranked, what_if, what_if_call
from workloom.metrics.workflow.view import workflow
from workloom.metrics.workflow.wasted import wasted
from workloom.records import CallRecord, Dependency, SessionRecord

AGENTS = ("main", "explore:1", "explore:2", "plan")
STEPS = ("lag", "connect", "queue", "prefill", "decode", "stream_end")


class Node(NamedTuple):
    """A call: what it waits for (place, wait, gap), who makes it, how long each step of its own takes."""

    after: list[tuple[int, int, int]]
    agent: str
    steps: list[int]


@st.composite
def nodes(draw: st.DrawFn, most: int = 9) -> list[Node]:
    """A session; small numbers, so that ties are common."""
    out: list[Node] = []
    for i in range(draw(st.integers(1, most))):
        parents = draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else []
        after = [(p, draw(st.integers(0, 6)), draw(st.integers(0, len(GAPS) - 1))) for p in sorted(parents)]
        steps = draw(st.lists(st.integers(0, 4), min_size=6, max_size=6))
        out.append(Node(after, draw(st.sampled_from(AGENTS)), steps))
    return out


def played(session: list[Node], due_ns: int = 0, later: dict[int, int] | None = None) -> list[tuple[int, int]]:
    """Due and done of every call, by a plain loop; `later`: calls that take so much longer."""
    spans: list[tuple[int, int]] = []
    for i, node in enumerate(session):
        due = max((spans[p][1] + wait for p, wait, _ in node.after), default=due_ns)
        spans.append((due, due + sum(node.steps) + (later or {}).get(i, 0)))
    return spans


def run_of(*sessions: list[Node]) -> Measured:
    """The run in which all went as the nodes say; session k begins at 1000 k."""
    calls, records = [], []
    for k, session in enumerate(sessions):
        spans = played(session, 1000 * k)
        for i, (node, (due, done)) in enumerate(zip(session, spans, strict=True)):
            at = (due + np.cumsum([0, *node.steps])).tolist()
            after = [Dependency(p, wait, GAPS[gap]) for p, wait, gap in node.after]  # type: ignore[arg-type]
            call = CallRecord(k, f"s{k}", f"c{i}", node.agent, "m", "ok", due, ordinal=i, after=after)
            call.connect_ns = node.steps[1]
            call.sent_ns, call.admitted_ns, call.first_ns, call.last_ns, call.done_ns = at[2:]
            assert call.done_ns == done
            calls.append(call)
        end = max(done for _, done in spans)
        records.append(SessionRecord(k, f"s{k}", "ok", 1000 * k, 1000 * k, end, len(session)))
    return measured_records(calls, records, window=Window(0, 10**9))


def longest(session: list[Node]) -> int:
    """The makespan by brute force: the longest of all paths, each summed up by itself."""

    def ways(i: int) -> list[int]:
        own = sum(session[i].steps)
        before = [[way + wait for way in ways(p)] for p, wait, _ in session[i].after] or [[0]]
        return [own + way for each in before for way in each]

    return max(way for i in range(len(session)) for way in ways(i))


@given(st.lists(nodes(6), min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_the_makespan_is_the_longest_of_all_paths_and_the_parts_add_up_to_it(sessions: list[list[Node]]) -> None:
    run = run_of(*sessions)
    blame = session_blame(run)
    assert blame.makespan_ns.tolist() == [longest(session) for session in sessions]
    assert blame.parts_ns.sum(axis=1).tolist() == blame.makespan_ns.tolist()
    assert check_adds_up(run) == len(sessions) + len(tasks(run))


@given(nodes())
@settings(max_examples=50, deadline=None)
def test_slack_is_what_a_call_can_take_longer_and_no_more(session: list[Node]) -> None:
    run = run_of(session)
    slack = slack_ns(workflow(run)).tolist()
    end = max(done for _, done in played(session))
    assert min(slack) == 0
    assert {slack[row] for row in session_blame(run).legs.row} == {0}, "nothing to spare on the critical path"
    for i, spare in enumerate(slack):
        assert max(done for _, done in played(session, later={i: spare})) == end
        assert max(done for _, done in played(session, later={i: spare + 1})) == end + 1


@given(nodes(), st.sampled_from(["main", "explore", "plan"]), st.sampled_from(PARTS), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_a_what_if_is_the_run_played_again(session: list[Node], role: str, part: Part, factor: float) -> None:
    def less(node: Node) -> Node:
        mine = node.agent.partition(":")[0] == role
        steps = [
            x - round((1 - factor) * x) if mine and name == part else x
            for name, x in zip(STEPS, node.steps, strict=True)
        ]
        after = [
            (p, wait - round((1 - factor) * wait) if mine and gap_part(gap) == part else wait, gap)
            for p, wait, gap in node.after
        ]
        return Node(after, node.agent, steps)

    run = run_of(session)
    before = max(done for _, done in played(session))
    after = max(done for _, done in played([less(node) for node in session]))
    saving = what_if(run, role, part, factor)
    assert np.rint(saving.saved_s * 1e9).tolist() == [before - after]
    if factor == 1.0:
        assert before == after


@given(nodes())
@settings(max_examples=60, deadline=None)
def test_the_ranking_misses_nothing(session: list[Node]) -> None:
    """What comes first saves as much as the best of all roles and parts, each tried."""
    run = run_of(session)
    tried = [
        float(what_if(run, role, part, 0.0).saved_s.sum())
        for role in run.role.words
        for part in PARTS
        if part != "human"
    ]
    best = ranked(run, most=3)
    found = [float(saving.saved_s.sum()) for saving in best]
    assert found == sorted(tried, reverse=True)[: len(found)]
    assert len(found) == 3 or all(saved == 0 for saved in sorted(tried, reverse=True)[len(found) :])


@given(nodes(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_call_at_no_time_saves_at_most_what_it_took(session: list[Node], data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(session) - 1))
    run = run_of(session)
    served = sum(x for name, x in zip(STEPS, session[row].steps, strict=True) if name in SERVER)
    shorter = played(session, later={row: -served})
    saved = round(float(what_if_call(run, row).saved_s[0]) * 1e9)
    assert saved == max(done for _, done in played(session)) - max(done for _, done in shorter)
    assert 0 <= saved <= served


@given(nodes(), st.data())
@settings(max_examples=50, deadline=None)
def test_parts_add_up_whatever_the_instants_are(session: list[Node], data: st.DataObject) -> None:
    """Records that no driver would write: calls due before their parents are done, instants missing or disordered."""
    run = run_of(session)
    n = len(session)
    for name in ("due_ns", "sent_ns", "admitted_ns", "first_ns", "last_ns"):
        column = getattr(run.calls, name)
        column += data.draw(st.lists(st.integers(-9, 9), min_size=n, max_size=n))
        if name in ("admitted_ns", "first_ns", "last_ns"):
            column[data.draw(st.lists(st.integers(0, n - 1), max_size=2))] = np.nan
    run.calls.due_ns[:] = np.clip(run.calls.due_ns, 0, run.calls.done_ns)
    assert check_adds_up(run) >= 1


@given(nodes())
@settings(max_examples=50, deadline=None)
def test_tasks_turns_and_depths_are_those_of_a_plain_loop(session: list[Node]) -> None:
    run = run_of(session, session)
    of: list[int] = []
    opened = 0
    depth: dict[str, int] = {}
    seen: dict[str, int] = {}
    expected_turns, expected_depths = [], []
    for node in session:
        if not node.after or any(GAPS[gap] == "human" for _, _, gap in node.after):
            of.append(opened)
            opened += 1
        else:
            of.append(max(of[p] for p, _, _ in node.after))
        if node.agent not in depth:
            others = [(p, GAPS[gap]) for p, _, gap in node.after if session[p].agent != node.agent]
            spawners = [p for p, gap in others if gap == "spawn"]
            above = spawners or [p for p, _ in others]
            depth[node.agent] = depth[session[above[0]].agent] + bool(spawners) if above else 0
        expected_depths.append(depth[node.agent])
        expected_turns.append(seen.get(node.agent, 0))
        seen[node.agent] = expected_turns[-1] + 1
    assert tasks(run).of.tolist() == of + [opened + task for task in of]
    assert depths(run).tolist() == expected_depths * 2
    assert turns(run).tolist() == expected_turns * 2


@given(nodes(), st.data())
@settings(max_examples=50, deadline=None)
def test_work_is_wasted_unless_its_result_reached_somebody(session: list[Node], data: st.DataObject) -> None:
    n = len(session)
    status = data.draw(st.lists(st.sampled_from([OK, OK, OK, ERROR, CENSORED, CANCELLED]), min_size=n, max_size=n))
    run = run_of(session)
    run.calls.status[:] = status

    def below(i: int) -> list[int]:
        return [j for j, node in enumerate(session) if any(p == i for p, _, _ in node.after)]

    def read(i: int) -> bool:
        """The human has the answer, or it is the last of its branch."""
        asked = any(p == i and GAPS[gap] == "human" for node in session for p, _, gap in node.after)
        return status[i] == OK and (asked or not below(i))

    def reaches(i: int) -> bool:
        return status[i] == CENSORED or read(i) or any(reaches(j) for j in below(i))

    expected = [status[i] == ERROR or (status[i] == OK and not reaches(i)) for i in range(n)]
    assert wasted(run).tolist() == expected


def gap_part(gap: int) -> str:
    return "unnamed" if GAPS[gap] == "none" else GAPS[gap]
