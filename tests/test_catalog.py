"""The catalog: every metric has a name with its unit, a meaning of its own, and a place in docs/metrics.md."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from metric_runs import CANONICAL

from workloom.answers.trial import in_memory
from workloom.engine.profile import load
from workloom.errors import UsageError
from workloom.metrics.catalog import Metric, Sample, Totals, catalog, find
from workloom.metrics.figure import Figure
from workloom.metrics.measured import Measured
from workloom.metrics.summary import summary_of
from workloom.plan import Closed, Limits, Recipe, TraceRef, make

ROOT = Path(__file__).parents[1]
ENDS = {
    "s": ("_s",),
    "tokens": ("_tokens",),
    "tokens/s": ("_tokens_per_s", "_tokens_per_s_per_gpu"),
    "1/s": ("_per_s", "_per_s_per_gpu"),
    "share": ("_share", "_rate", "errors", "_ratio"),
    "ratio": ("_ratio", "_index", "slowdown"),
    "USD": ("_usd",),
    "J": ("_j",),
    "W": ("_w",),
    "token-s": ("_token_s",),
    "count": ("_calls", "_at_once"),
}
"""What a name ends in, by unit."""


@cache
def run() -> Measured:
    """Ten sessions of the canonical workload on a small server."""
    recipe = Recipe(TraceRef((str(CANONICAL),)), Closed(4), Limits(sessions=10))
    return in_memory(make(recipe), load("llama-3.1-8b-h200x1"))


@pytest.mark.parametrize("metric", catalog().values(), ids=lambda metric: metric.name)
def test_a_metric_has_a_name_with_its_unit_and_a_meaning(metric: Metric) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
    assert metric.name.endswith(ENDS[metric.unit]), f"{metric.name} does not end in its unit"
    assert metric.title and metric.better in ("lower", "higher", "neither")
    assert metric.doc.count(".") >= 1 and metric.doc.rstrip().endswith(".") and len(metric.doc.split()) >= 5, metric.doc


def test_no_two_metrics_mean_the_same() -> None:
    docs = [metric.doc for metric in catalog().values()]
    assert len(set(docs)) == len(docs)


def test_docs_metrics_md_is_what_the_catalog_says() -> None:
    spec = importlib.util.spec_from_file_location("make_metric_docs", ROOT / "scripts" / "make_metric_docs.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert page == script.page(), "run scripts/make_metric_docs.py"
    for metric in catalog().values():
        assert f"**`{metric.short}`**" in page
        assert all(f"`{alias}`" in page for alias in metric.aliases)


def test_every_name_finds_its_metric_and_a_typo_the_nearest() -> None:
    for metric in catalog().values():
        assert all(find(name) is metric for name in (metric.name, metric.short, *metric.aliases))
    with pytest.raises(UsageError, match="did you mean task_makespan"):
        find("task_makspan")


@pytest.mark.parametrize("metric", catalog().values(), ids=lambda metric: metric.name)
def test_a_metric_says_one_value_a_thing_or_two_totals_a_session(metric: Metric) -> None:
    seen = metric.observe(run())
    if seen is None:
        assert metric.unit in ("USD", "J", "W") or metric.name in _UNSAID
        return
    instances = set(run().calls.instance.tolist())
    assert set(seen.session.tolist()) <= instances
    if metric.of == "run":
        assert isinstance(seen, Totals)
        assert len(seen.part) == len(seen.session) and np.isfinite(seen.part).all()
        if isinstance(seen.whole, np.ndarray):
            assert len(seen.whole) == len(seen.part)
    else:
        assert isinstance(seen, Sample)
        assert len(seen.values) == len(seen.session)
        assert not (seen.values < 0).any()


_UNSAID = {"slowdown", "eviction_share", "preemptions_ratio"} | {
    name for name in catalog() if name.startswith("good") or name.endswith("_per_gpu")
}
"""Metrics of which records alone say nothing: they need a manifest, the servers' counters or promises."""


def test_throughputs_and_hit_rates_are_those_of_the_summary() -> None:
    told = summary_of(run())
    through, hits = told.throughput, told.hits
    expected = {
        "output_tokens_per_s": through.output_tokens_per_s,
        "prompt_tokens_per_s": through.prompt_tokens_per_s,
        "calls_per_s": through.calls_per_s,
        "sessions_per_s": through.sessions_per_s,
        "hit_rate": hits.reported,
        "ideal_hit_rate": hits.ideal,
    }
    for name, value in expected.items():
        seen = catalog()[name].observe(run())
        assert isinstance(seen, Totals)
        assert value is not None and value > 0
        assert np.sum(seen.part) / np.sum(seen.whole) == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("name", ["output_tokens_per_s", "prompt_tokens_per_s", "calls_per_s"])
def test_what_the_roles_deliver_adds_up_to_all_of_it(name: str) -> None:
    whole = catalog()[name].observe(run())
    roles = run().role.words
    assert isinstance(whole, Totals) and roles == ["main", "explore"]
    parts = [Figure(name, of=(("agent", role),)).observe(run()) for role in roles]
    assert all(isinstance(part, Totals) and part.part.sum() > 0 for part in parts)
    assert sum(part.part.sum() for part in parts if isinstance(part, Totals)) == pytest.approx(whole.part.sum())
