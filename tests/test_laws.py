"""Families of sizes and waits: what is sampled, and what the published OpenClaw session shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from handmade import call, one

from workloom.model.facts import facts
from workloom.model.families import InverseGaussian, SpikeTail
from workloom.model.laws import LawsSection
from workloom.traces import open_trace

DOCUMENT = Path(__file__).parent.parent / "../shared/data/openclaw/interp-dag.json"


def test_what_is_added_is_the_answer_and_what_is_new_where_all_is_kept() -> None:
    section = LawsSection()
    section.add(
        one(
            call("a", fresh=100, out=10),
            call("b", "a", fresh=30, out=20, inherit="a"),
            call("c", "b", fresh=40, out=30, inherit=("b", 100)),
        )
    )
    laws = {law.sample: law for law in section.result()}
    counts = {name: law.choice.n for name, law in laws.items() if law.choice is not None}
    assert counts == {"added": 1, "fresh": 3, "output": 3, "wait": 2}, "c keeps only a part of what was before it"
    added = laws["added"].choice
    assert added is not None and added.best == "fixed" and added.family.overall_mean == 10 + 30


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the real traces are in ../shared/data, which is not there")
def test_openclaw_has_inverse_gaussian_tokens_and_waits_with_a_spike() -> None:
    section = LawsSection()
    for session in facts(open_trace([DOCUMENT])):
        section.add(session)
    choices = {law.sample: law.choice for law in section.result()}
    added, output, wait = choices["added"], choices["output"], choices["wait"]
    assert added is not None and added.best == added.best_by_bic == "inverse-gaussian"
    assert output is not None and output.best_by_bic == "inverse-gaussian", "by AIC a spike with a tail is 5.6 better"
    told = output.named("inverse-gaussian")
    assert told is not None and isinstance(told.family, InverseGaussian)
    assert (round(told.family.mean), round(told.family.shape)) == (615, 145)
    assert wait is not None and wait.best == wait.best_by_bic == "spike-tail" and isinstance(wait.family, SpikeTail)
    assert wait.family.spike_median < 0.1 < wait.family.tail_median
