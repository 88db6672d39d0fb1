"""What chance does: pairs of runs of one system seldom differ, and one that is slower is found.

Every run has sessions that no other run has, so nothing is paired unless a test says so. The figures are named here,
before anybody looked.
"""

from __future__ import annotations

import pytest
from compare_runs import CLOSED, OPEN, side

from workloom.answers.compare import compare
from workloom.metrics.figure import figure
from workloom.metrics.uncertainty.difference import Difference
from workloom.plan import Load

NAMED = [figure("ttft_p95"), figure("e2e_mean")]


def pairs(count: int, load: Load, *, slower: float = 1.0, sessions: int = 120) -> dict[str, list[Difference]]:
    """The differences of each figure, of so many pairs of strangers."""
    found: dict[str, list[Difference]] = {named.say(): [] for named in NAMED}
    for i in range(count):
        a, b = side(2 * i, load, count=sessions), side(2 * i + 1, load, slower=slower, count=sessions)
        for row in compare(a, b, NAMED).rows:
            found[row.figure].append(row.difference)
    return found


def differ(found: list[Difference]) -> int:
    """How many do at the 5 % level: the interval does not hold that there is no difference."""
    told = [each for each in found if each.low is not None and each.high is not None]
    assert len(told) >= 0.8 * len(found), "too many without an interval"
    return sum(not each.low <= 0 <= each.high for each in told if each.low is not None and each.high is not None)


def test_two_runs_of_one_system_seldom_differ() -> None:
    """Of 8 pairs 4 would differ once in 2,500 times."""
    found = pairs(8, OPEN)
    assert max(map(differ, found.values())) <= 3


def test_a_system_that_is_slower_by_a_fifth_is_found_session_by_session() -> None:
    """Paired: the same sessions on both, so that their own differences drop out."""
    for i in range(3):
        found = compare(side(i, count=60), side(i, slower=1.2, count=60), NAMED, pairing="paired")
        row = next(row for row in found.rows if row.figure == "e2e_mean")
        assert row.verdict == "worse" and row.holds
        assert row.difference.ratio_low is not None and row.difference.ratio_high is not None
        assert row.difference.ratio_low > 1.15 and row.difference.ratio_high < 1.3
        assert found.calls is not None and found.calls.moved[0].ratio_p50 > 1.1


@pytest.mark.long
@pytest.mark.parametrize("load", [OPEN, CLOSED], ids=["open", "closed"])
def test_of_200_pairs_of_one_system_at_most_18_differ(load: Load) -> None:
    """At 5 % chance alone stays at 18 of 200 or below in 99 of 100 tries."""
    counts = {name: differ(found) for name, found in pairs(200, load).items()}
    assert all(count <= 18 for count in counts.values()), counts
    assert sum(counts.values()) > 0, "intervals so wide that nothing ever differs are no intervals"


@pytest.mark.long
def test_most_systems_that_are_slower_by_a_fifth_are_found_among_strangers() -> None:
    found = pairs(20, OPEN, slower=1.2, sessions=400)["e2e_mean"]
    assert sum(each.low is not None and each.low > 0 for each in found) > 10
