"""Fleets as a user asks for them, wrongly: one error that says where and what to do, and nothing left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

import workloom
from workloom.cli import main
from workloom.cli.engine import tell_strangers, tell_unheard
from workloom.engine import profile as profiles
from workloom.engine.fleet import Fleet, Pool
from workloom.engine.profile import Retention
from workloom.plan import Closed, Plan, Recipe, TraceRef, make
from workloom.session import Call, Header, Part, Session
from workloom.traces import native

CANONICAL = str(Path(workloom.__file__).parent / "data/canonical.jsonl")
ENGINE = ["--engine", "llama-3.1-8b-h200x1"]
POOL = "{engine: llama-3.1-8b-h200x1, replicas: 2%s}"
GOOD = f"router: prefix\npools:\n  - {POOL % ''}\n"

WRONG = {
    "an unknown router": (GOOD.replace("prefix", "prefxi"), "there is no router prefxi", "did you mean prefix?"),
    "a missing profile": (GOOD.replace("8b-h200x1", "8b-h200"), "llama-3.1-8b-h200", "did you mean"),
    "limits that do not hold it": (
        GOOD.replace("replicas: 2", "replicas: 2, autoscale: {most: 1}"),
        "begins within its limits",
        "autoscale",
    ),
    "thresholds the wrong way round": (
        GOOD.replace("replicas: 2", "replicas: 2, autoscale: {most: 4, up_outstanding: 2, down_outstanding: 3}"),
        "below the up thresholds",
        "pools",
    ),
    "a model nobody serves": (
        GOOD.replace("replicas: 2", "replicas: 2, models: [small]") + "served: {explore: smal}\n",
        "no replica serves this model",
        "did you mean small?",
    ),
    "prefill without decode": (
        GOOD.replace("replicas: 2", "replicas: 2, role: prefill, override: {kv_token_bytes: 131072}"),
        "prefill and decode belong together",
        "role",
    ),
    "a template of each pool's own": (
        GOOD + f"  - {POOL % ', override: {template: {call_tokens: 9}}'}\n",
        "one chat template",
        "override",
    ),
    "a field no profile has": (
        GOOD.replace("replicas: 2", "replicas: 2, override: {kv_tokns: 9}"),
        "a profile cannot be changed so",
        "kv_tokns",
    ),
    "a policy nobody wrote": (
        GOOD.replace("replicas: 2", "replicas: 2, override: {policy: fcsf}"),
        "no scheduling policy called fcsf",
        "did you mean fcfs?",
    ),
    "swap without a place to swap to": (
        GOOD.replace("replicas: 2", "replicas: 2, override: {preemption: swap}"),
        "swap needs a tier",
        "pools[0]",
    ),
    "a look that never comes": (
        GOOD.replace("replicas: 2", "replicas: 2, autoscale: {most: 4, every_s: .inf}"),
        "the fleet is malformed",
        "every_s",
    ),
    "looks without an end": (
        GOOD.replace("replicas: 2", "replicas: 2, autoscale: {most: 4, every_s: 1.0e-12}"),
        "the fleet is malformed",
        "every_s",
    ),
    "a link that takes no time": (
        GOOD + "transfer: {bytes_per_s: .inf}\n",
        "the fleet is malformed",
        "bytes_per_s",
    ),
    "no YAML": ("pools: [", "the fleet is malformed", "hint:"),
    "a word it does not know": (GOOD.replace("replicas", "replica"), "the fleet is malformed", "replica"),
}


def refusal(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that fails: one error, and nothing else."""
    monkeypatch.setattr(sys, "argv", ["workloom", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (1, 2)
    out, err = capsys.readouterr()
    assert out == "" and err.count("error: ") == 1
    return err


@pytest.mark.parametrize("command", ["run", "serve"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_fleet_that_cannot_be_is_one_error(
    command: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, what, more = WRONG[wrong]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.yaml").write_text(text)
    words = ["run", CANONICAL, "-o", "run"] if command == "run" else ["serve", "--port", "0", "--record", "r.jsonl"]
    said = refusal([*words, "--fleet", "fleet.yaml"], monkeypatch, capsys)
    assert what in said and more in said and "hint:" in said
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.yaml"], "nothing is left behind"


@pytest.mark.parametrize(
    ("words", "what", "more"),
    [
        (["--fleet", "none.yaml"], "the fleet cannot be read", "none.yaml"),
        (["--fleet", "none.yaml", "--kv-tokens", "9"], "a fleet file says what its engines are", "--kv-tokens"),
        (["--engine", "llama-3.1-8b-h200x1", "--replicas", "0"], "replicas are a count", "--replicas"),
        (["--engine", "llama-3.1-8b-h200x1", "--replicas", "2", "--router", "least"], "no router least", "least_kv"),
        ([*ENGINE, "--prefill-replicas", "-1"], "replicas are a count", "--prefill-replicas"),
        ([*ENGINE, "--policy", "fcsf"], "no scheduling policy called fcsf", "did you mean fcfs?"),
        ([*ENGINE, "--preemption", "swap"], "swap needs a tier", "--host-tokens"),
        ([*ENGINE, "--policy", "priority", "--priority", "main=--1"], "a priority is ROLE=N", "main=--1"),
        ([*ENGINE, "--policy", "priority", "--priority", "main=²"], "a priority is ROLE=N", "main=²"),
        ([*ENGINE, "--policy", "priority", "--priority", "a=1", "--priority", "a=2"], "one priority", "a=2"),
        ([*ENGINE, "--priority", "main=1"], "an option stands alone", "--policy priority"),
        ([*ENGINE, "--tier-prefetch"], "an option stands alone", "--host-tokens or --disk-tokens"),
        ([*ENGINE, "--host-bytes-per-s", "1e9"], "an option stands alone", "--host-tokens"),
        ([*ENGINE, "--host-tokens", "9", "--host-bytes-per-s", "inf"], "a number cannot be used", "finite"),
        ([*ENGINE, "--host-tokens", "²"], "a KV capacity is a number of tokens", "--host-tokens"),
        ([*ENGINE, "--ttl", "inf"], "a number cannot be used", "--ttl"),
        ([*ENGINE, "--draft-tokens", "3"], "speculative decoding is two figures", "--acceptance besides"),
        ([*ENGINE, "--acceptance", "2"], "speculative decoding is two figures", "--draft-tokens besides"),
        ([*ENGINE, "--kv-tokens", "15"], "no room for any call", "in blocks of 16"),
    ],
)
def test_so_are_options_that_ask_for_none(
    words: list[str],
    what: str,
    more: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refusal(["run", CANONICAL, "-o", "run", *words], monkeypatch, capsys)
    assert what in said and more in said and ("hint:" in said or "expected:" in said)
    assert list(tmp_path.iterdir()) == []


def planned(folder: Path, *agents: str) -> Plan:
    """One session with a call of each agent."""
    calls = tuple(Call(str(i), 9, agent=agent, fresh=(Part("user", 90),)) for i, agent in enumerate(agents))
    native.write(folder / "trace.jsonl", Header(source="test"), [Session("s", calls)])
    return make(Recipe(TraceRef((str(folder / "trace.jsonl"),)), Closed(1)))


def test_names_that_no_call_has_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They change nothing, which no figure would show. explorer:1 and explorer:2 are of one role."""
    plan = planned(tmp_path, "main", "explorer:1", "explorer:2")
    profile = profiles.load("llama-3.1-8b-h200x1")
    pools = (Pool(replace(profile, policy="priority"), models=("large",)), Pool(profile, models=("small",)))
    fleet = Fleet(pools, served={"explorer": "small"}, priorities={"explorer": 1})
    assert [fleet.serving(agent, "") for agent in ("main", "explorer:1", "explorer:2")] == ["large", "small", "small"]
    tell_strangers(fleet, plan)
    assert capsys.readouterr().err == ""
    tell_strangers(Fleet(pools[1:], served={"explorr": "small"}, priorities={"critic": 1}), plan)
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in told] == [
        "warning: served: no call of this plan is of explorr",
        "warning: priorities: no call of this plan is of critic",
        "warning: no pool schedules by priority, so priorities change nothing",
    ]


def test_what_calls_over_http_cannot_ask_for_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    pool = Pool(profiles.load("llama-3.1-8b-h200x1"))
    tell_unheard(Fleet((pool,)))
    assert capsys.readouterr().err == ""
    pinning = replace(pool, profile=replace(pool.profile, retention=Retention(pinned_tokens=9)))
    tell_unheard(Fleet((pinning,), priorities={"main": 1}))
    assert capsys.readouterr().err.endswith("change nothing here: priorities, pinned_tokens\n")
