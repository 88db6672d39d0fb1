"""What chance does: pairs of runs of one system seldom differ, and one that is slower is found.

The figures are named here, before anybody looked. `days`: both runs have the same sessions in the same order, on two
days whose waits and answers differ; each is then compared with itself. `strangers`: no session is in two runs.

python tests/test_compare_chance.py        the tables of docs/compare.md (minutes)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
from compare_runs import CLOSED, OPEN, side

from workloom.answers.compare import Comparison, compare
from workloom.answers.compare.compare import Row
from workloom.metrics.figure import figure
from workloom.plan import Load

NAMED = [figure(name) for name in ("ttft_p95", "ttft_p50", "e2e_mean", "tpot_mean", "tbc_p95")]
AT_MOST = 18
"""Of 200 at 5 %: chance alone stays at it or below in 99 of 100 tries."""
LOADS = {"open": OPEN, "closed": CLOSED}


def days(count: int, load: Load, sessions: int, slower: float = 1.0) -> Iterator[Comparison]:
    for i in range(count):
        a = side(i, load, count=sessions, day=2 * i)
        b = side(i, load, count=sessions, day=2 * i + 1, slower=slower)
        yield compare(a, b, NAMED, pairing="paired")


def strangers(count: int, load: Load, sessions: int, slower: float = 1.0) -> Iterator[Comparison]:
    for i in range(count):
        a, b = side(2 * i, load, count=sessions), side(2 * i + 1, load, count=sessions, slower=slower)
        yield compare(a, b, NAMED)


def told(found: Iterable[Comparison], verdicts: Iterable[str] = ("better", "worse")) -> Counter[str]:
    """How many had one of the verdicts, by figure; 0 too."""
    counts = Counter({named.say(): 0 for named in NAMED})
    counts.update(row.figure for each in found for row in each.rows if row.verdict in verdicts)
    return counts


def rows(found: Comparison) -> dict[str, Row]:
    return {row.figure: row for row in found.rows}


def test_two_days_of_one_system_seldom_differ() -> None:
    """Of 8 pairs 4 would differ once in 2,500 times."""
    assert max(told(days(8, OPEN, 20)).values()) <= 3


def test_a_system_that_is_slower_by_a_fifth_is_told_by_twenty_sessions() -> None:
    """On one plan. Of gaps twenty sessions carry no interval, and the test alone tells it."""
    for i in range(3):
        found = compare(side(i, count=20), side(i, slower=1.2, count=20), NAMED, pairing="paired")
        for name in ("e2e_mean", "tpot_mean", "tbc_p95"):
            assert rows(found)[name].verdict == "worse", (i, name, rows(found)[name])
        assert rows(found)["e2e_mean"].holds and not rows(found)["e2e_mean"].by_test
        assert rows(found)["tbc_p95"].by_test and "by the test alone" in rows(found)["tbc_p95"].why
        low, high = (getattr(rows(found)["e2e_mean"].difference, name) for name in ("ratio_low", "ratio_high"))
        assert 1.1 < low < high < 1.4
        assert found.calls is not None and found.calls.moved[0].ratio_p50 > 1.1


@pytest.mark.long
@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_of_200_pairs_of_days_of_one_system_at_most_18_differ(load: Load) -> None:
    counts = told(days(200, load, 20))
    assert max(counts.values()) <= AT_MOST, counts
    assert sum(counts.values()) > 0, "intervals so wide that nothing ever differs are no intervals"


@pytest.mark.long
@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_of_200_pairs_of_strangers_of_one_system_at_most_18_differ(load: Load) -> None:
    counts = told(strangers(200, load, 120))
    assert max(counts.values()) <= AT_MOST, counts
    assert sum(counts.values()) > 0, "intervals so wide that nothing ever differs are no intervals"


@pytest.mark.long
def test_most_systems_that_are_slower_by_a_fifth_are_found() -> None:
    assert told(days(40, OPEN, 20, 1.2), ["worse"])["e2e_mean"] > 20
    counts = told(strangers(40, OPEN, 60, 1.2), ["worse"])
    assert min(counts["tpot_mean"], counts["tbc_p95"]) > 20, counts


def table(count: int) -> Iterator[str]:
    """Verdicts of better or worse in per cent, a row for each kind of pair."""
    yield " | ".join(["pairs", *(named.say() for named in NAMED)])
    for name, load in LOADS.items():
        for pairs, sessions in ((days, 12), (days, 20), (days, 60), (strangers, 60), (strangers, 120)):
            for slower in (1.0, 1.2):
                n = count if slower == 1 else count // 2
                found = told(pairs(n, load, sessions, slower), ["better", "worse"] if slower == 1 else ["worse"])
                what = f"{name}, {pairs.__name__}, {sessions} sessions, {'alike' if slower == 1 else 'slower'} ({n})"
                yield " | ".join([what, *(f"{100 * found[named.say()] / n:.0f}" for named in NAMED)])


if __name__ == "__main__":
    for line in table(200):
        print(line, flush=True)
