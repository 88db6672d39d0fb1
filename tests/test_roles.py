"""Roles and models: their amounts, how steady their shares are, and who dominates what."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import mean, pstdev

import pytest
from hypothesis import given, settings
from msgspec import to_builtins
from strategies import workload

from workloom.model.facts import facts
from workloom.model.roles import MEASURES, Leader, Prices, Role, Roles, RolesSection
from workloom.session import Call, Edge, Inherit, Part, Recorded, Session
from workloom.traces import open_trace

DATA = Path(__file__).parent.parent / "../shared/data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the real traces in ../shared/data are absent")


def roles(sessions: Iterable[Session], prices: Prices | None = None) -> Roles:
    section = RolesSection(prices)
    for row in facts(sessions):
        section.add(row)
    return section.result()


def call(
    name: str,
    role: str,
    seconds: tuple[float, float],
    fresh: int,
    output: int,
    *after: str,
    of: str = "",
    model: str = "m",
) -> Call:
    return Call(
        name,
        output,
        tuple(Edge(up) for up in after),
        agent=role,
        model=model,
        inherit=Inherit(of) if of else None,
        fresh=(Part("user", fresh),),
        recorded=Recorded(seconds[0], None, seconds[1]),
    )


def two_sessions() -> list[Session]:
    """One where `main` and two agents work (one of these off the critical path), one where `main` is alone."""
    together = (
        call("a", "main", (0, 2), 100, 20),
        call("b", "Explore:1", (2, 12), 50, 10, "a", model="small"),
        call("c", "Explore:2", (2, 8), 30, 10, "a", model="small"),
        call("d", "main", (12, 15), 80, 40, "b", "c", "a", of="a"),
    )
    return [Session("s", together), Session("t", (call("a", "main", (0, 4), 10, 10),))]


def test_amounts_by_role_by_hand() -> None:
    told = roles(two_sessions())
    main, explore = told.roles
    assert (main.name, main.sessions, main.calls.total) == ("main", 2, 3)
    assert (explore.name, explore.sessions, explore.calls.total) == ("Explore", 1, 2)
    assert main.prompt_tokens.total == 100 + (120 + 80) + 10
    assert main.computed_tokens.total == 100 + 80 + 10
    assert main.output_tokens.total == 70
    assert (main.inference_s.total, main.critical_s.total) == (2 + 3 + 4, 9)
    assert (explore.inference_s.total, explore.critical_s.total) == (16, 10)
    assert main.kv_token_s.total == 120 * 2 + 240 * 3 + 20 * 4
    assert explore.kv_token_s.total == 60 * 10 + 40 * 6
    assert main.cost.total == pytest.approx(190 * 1 + 120 * 0.1 + 70 * 5)
    assert explore.cost.total == 80 + 20 * 5
    assert explore.calls.share == 2 / 5


def test_a_share_is_as_steady_as_it_is_over_sessions() -> None:
    explore = roles(two_sessions()).roles[1]
    assert (explore.calls.sessions, explore.calls.share_mean, explore.calls.share_cv) == (2, 0.25, 1.0)
    assert (explore.calls.present_mean, explore.calls.present_cv) == (0.5, None)
    same = roles(two_sessions()[0] for _ in range(3)).roles[1]
    assert (same.calls.share_mean, same.calls.share_cv, same.calls.present_cv) == (0.5, 0, 0)


def test_who_dominates_is_told_with_the_share() -> None:
    told = roles(two_sessions())
    assert told.leading_roles.latency == Leader("Explore", 10 / 19)
    assert told.leading_roles.kv == Leader("main", 1040 / 1880)
    assert told.leading_models.latency == Leader("small", 10 / 19)
    assert told.leading_roles.cost == Leader("main", pytest.approx(552 / 732))


def test_prices_are_an_assumption_that_is_told() -> None:
    told = roles(two_sessions(), Prices(computed=1, cached=0, output=0))
    assert told.prices == Prices(1, 0, 0)
    assert [role.cost.total for role in told.roles] == [190, 80]
    assert roles([]).prices == Prices(1.0, 0.1, 5.0)


def test_where_there_is_nothing_to_share_nobody_dominates() -> None:
    told = roles([Session("s", (Call("a", 0, recorded=Recorded(0.0, None, 0.0)),))])
    (main,) = told.roles
    assert (main.cost.share, main.cost.share_mean, main.cost.sessions) == (None, None, 0)
    assert (told.leading_roles.latency, told.leading_roles.cost, told.leading_roles.kv) == (None, None, None)
    assert roles([]).roles == ()


@settings(max_examples=30, deadline=None)
@given(workload())
def test_amounts_and_shares_agree_with_a_plain_count(sessions: list[Session]) -> None:
    told = roles(sessions)
    whole = {
        "calls": sum(len(session.calls) for session in sessions),
        "output_tokens": sum(call.output_tokens for session in sessions for call in session.calls),
    }
    for group, name_of in ((told.roles, lambda call: call.agent.split(":")[0]), (told.models, lambda call: call.model)):
        for measure in MEASURES:
            shares = [getattr(role, measure).share for role in group]
            assert None in shares or sum(shares) == pytest.approx(1)
        for measure, total in whole.items():
            assert sum(getattr(role, measure).total for role in group) == total
        for role in group:
            within = [mean(name_of(call) == role.name for call in session.calls) for session in sessions]
            assert role.calls.share_mean == pytest.approx(mean(within))
            assert role.sessions == sum(share > 0 for share in within)
            if len(sessions) > 1:
                assert role.calls.share_cv == pytest.approx(pstdev(within) / mean(within))


def test_measures_are_fields_of_a_role_in_json() -> None:
    (main, _) = to_builtins(roles(two_sessions()))["roles"]
    assert set(main) == {"name", "sessions", *MEASURES}
    assert MEASURES[0] == "calls" and MEASURES[-1] == "cost" and len(MEASURES) == 8


@real
def test_the_roles_of_real_traces() -> None:
    told = roles(open_trace([str(DATA / "weka")]))
    assert {role.name: (role.sessions, role.calls.total) for role in told.roles} == {
        "main": (52, 4359),
        "Explore": (9, 229),
        "general-purpose": (1, 37),
        "Plan": (2, 27),
    }
    assert sum(role.prompt_tokens.total for role in told.roles) == 583_453_329
    agents = roles(open_trace([str(DATA / "openclaw/branching-dag.json")]))
    assert agents.leading_roles.cost == Leader("subagent", pytest.approx(0.942, abs=0.001))
    assert largest(agents.roles) == "subagent"


def largest(group: tuple[Role, ...]) -> str:
    return max(group, key=lambda role: role.critical_s.total).name
