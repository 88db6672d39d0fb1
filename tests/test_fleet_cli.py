"""Fleets as a user asks for them, wrongly: one error that says where and what to do, and nothing left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import workloom
from workloom.cli import main

CANONICAL = str(Path(workloom.__file__).parent / "data/canonical.jsonl")
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
