"""What holds in every test: the parts of makespans add up, in every session of every run whose numbers are made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from workloom.metrics import summary
from workloom.metrics.measured import Measured
from workloom.metrics.workflow.explain import Explanation, explain
from workloom.metrics.workflow.path import check_adds_up


@pytest.fixture(scope="session", autouse=True)
def blame_adds_up() -> Iterator[None]:
    """Runs that a test makes in its own process are summarized at their end: each is looked at there.

    Those written by hand name no load, and need not agree with themselves.
    """

    def checked(run: Measured) -> Explanation:
        if run.manifest is not None and run.manifest.load:
            check_adds_up(run)
        return explain(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "explain", checked)
        yield
