"""The comparison of times fails where our clock is wrong, and not where a machine is slow."""

from __future__ import annotations

import pytest

from engines.checks import Compared, Pairs, agree

CALLS = 15


def pairs(theirs: float, *off: float) -> Pairs:
    """Calls that take `theirs` ms by somebody else, and by us so much more, in turn."""
    return [(theirs + off[i % len(off)], theirs) for i in range(CALLS)]


def judged(wire: Pairs, server: Pairs) -> str:
    """What becomes of a test that measures this."""
    try:
        agree(lambda _: {"TTFT": Compared(wire, server)})
    except pytest.skip.Exception:
        return "skipped"
    except AssertionError:
        return "failed"
    return "passed"


def test_a_clock_at_the_wrong_place_fails() -> None:
    right = pairs(75, 0.3)
    assert judged(right, right) == "passed"
    late_start = pairs(75, -70)  # after the response's headers
    assert judged(late_start, late_start) == "failed"
    late_stop = pairs(75, 12)  # at the second token
    assert judged(late_stop, late_stop) == "failed"
    assert judged(late_stop, right) == "failed", "the server's word does not make up for the wire's"


def test_what_holds_some_calls_up_does_not_matter() -> None:
    noisy = pairs(75, 0.5, 9, 0.4, 30, 25)
    assert judged(noisy, noisy) == "passed"


def test_what_the_wire_shows_too_is_the_servers() -> None:
    """A busy machine adds some milliseconds between the server's clock and its wire, a request in two parts 40."""
    right = pairs(75, 0.3)
    assert judged(right, pairs(75, 8)) == "skipped"
    assert judged(right, pairs(75, 40)) == "failed"


def test_one_good_attempt_of_three_is_enough() -> None:
    attempts = {"a": pairs(75, 30), "b": pairs(75, 0.3), "c": pairs(75, 30)}
    agree(lambda attempt: {"TTFT": Compared(attempts[attempt], attempts[attempt])})
