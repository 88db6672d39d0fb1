"""The collector is out of the way during a live run, and back after it."""

from __future__ import annotations

import gc

import pytest

from workloom.quiet import quiet


def test_what_was_alive_is_not_looked_at_and_all_is_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with quiet():
        assert gc.get_freeze_count() > 1000
        assert gc.get_threshold() != before and gc.isenabled()
    assert gc.get_threshold() == before and gc.get_freeze_count() == 0


def test_a_run_that_fails_leaves_the_collector_as_it_was() -> None:
    before = gc.get_threshold()
    with pytest.raises(KeyError), quiet():
        raise KeyError
    assert gc.get_threshold() == before and gc.get_freeze_count() == 0
