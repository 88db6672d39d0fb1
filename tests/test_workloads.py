"""The workloads that come with workloom: what their pages and comments say of them is so, and each runs by its name."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest

from workloom.cli import main
from workloom.errors import TraceError, UsageError
from workloom.model.families import Lognormal
from workloom.model.workload import builtin
from workloom.model.workload.generate import generate, header
from workloom.model.workload.opening import SESSIONS, named, open_sessions
from workloom.session import Session, prompt_tokens, validate
from workloom.traces import open_trace

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared/data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="no real traces at ../shared/data")

NAMES = [
    "1k1k",
    "1k8k",
    "8k1k",
    "agentic-coding",
    "bursty-probe",
    "chat",
    "code-qa",
    "coding-agent",
    "cs1",
    "cs2-dag",
    "cs2-linear",
    "office-work",
    "openclaw-branching",
    "openclaw-interp",
]


def drawn(name: str, count: int, seed: int = 7) -> list[Session]:
    return list(generate(builtin.builtin(name), seed, count))


def of_turns(sessions: Iterable[Session]) -> dict[str, np.ndarray]:
    """Fresh tokens, output and wait of all calls behind a gap, the output without the last of a session."""
    sessions = list(sessions)
    behind = [call for session in sessions for call in session.calls[1:]]
    return {
        "fresh": np.array([call.fresh_tokens for call in behind], float),
        "output": np.array([call.output_tokens for session in sessions for call in session.calls[:-1]], float),
        "wait": np.array([call.after[0].wait_s for call in behind], float),
        "final": np.array([session.calls[-1].output_tokens for session in sessions], float),
        "turns": np.array([len(session.calls) - 1 for session in sessions], float),
        "prompt": np.array([prompt_tokens(session)[session.calls[0].id] for session in sessions], float),
    }


def test_all_are_there() -> None:
    assert list(builtin.names()) == NAMES
    for name in NAMES:
        workload = builtin.builtin(name)
        assert workload.name == name
        assert workload.about and (workload.source or "k" in name), "it says where its numbers come from"


@pytest.mark.parametrize("name", NAMES)
def test_each_draws_valid_sessions_that_differ_where_they_should(name: str) -> None:
    made = drawn(name, 30)
    for session in made:
        validate(session)
        assert min(prompt_tokens(session).values()) > 0
    fixed = {"1k1k": 1, "1k8k": 1, "8k1k": 1, "cs2-dag": 1, "cs2-linear": 1, "bursty-probe": 2}
    assert len({session.calls for session in made}) == fixed.get(name, 30)


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_by_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    argv = ["run", name, "--generate", "2", "--engine", "llama-3.1-8b-h200x1", "--json", "-o", out]
    monkeypatch.setattr(sys, "argv", ["workloom", *argv])
    main()
    told = json.loads(capsys.readouterr().out)
    assert told["calls"]["ok"] == told["calls"]["due"] > 0


# ------------------------------------------------------------------------------------------------------ what they say


@pytest.mark.parametrize(
    ("name", "prompt", "answer"), [("1k1k", 1024, 1024), ("8k1k", 8192, 1024), ("1k8k", 1024, 8192)]
)
def test_single_calls(name: str, prompt: int, answer: int) -> None:
    (session,) = drawn(name, 1)
    assert [(prompt_tokens(session)[c.id], c.output_tokens, c.after) for c in session.calls] == [(prompt, answer, ())]


def mean_within(values: np.ndarray, told: float, errors: float = 4.0) -> bool:
    """Whether a mean is what is told, within sampling error."""
    return bool(abs(values.mean() - told) < errors * values.std() / math.sqrt(len(values)) + 0.03 * told)


def test_agentic_coding_has_the_published_means() -> None:
    turns = of_turns(drawn("agentic-coding", 1500))
    assert mean_within(turns["turns"], 20) and turns["turns"].max() > 100, "about 20, into the hundreds"
    assert mean_within(turns["output"], 250), "200 to 300"
    assert mean_within(turns["fresh"], 500)
    assert mean_within(turns["wait"], 1.0), "about 1 s"
    assert max(turns["fresh"].max(), turns["output"].max()) > 10_000, "mass into tens of thousands"
    assert turns["wait"].max() > 100, "past hundreds of seconds"
    assert 5000 < turns["prompt"].mean() < 8900, "thousands of tokens of tools, a smaller prompt than office work's"
    assert np.median(turns["final"]) < 300, "a short final answer"


def test_office_work_has_the_published_means() -> None:
    turns = of_turns(drawn("office-work", 800))
    assert mean_within(turns["turns"], 41)
    assert mean_within(turns["prompt"], 8870) and turns["prompt"].min() >= 8735 and turns["prompt"].max() <= 8988
    assert mean_within(turns["output"], 132) and abs(np.median(turns["output"]) - 19.5) < 2
    assert mean_within(turns["fresh"], 1103) and abs(np.median(turns["fresh"]) - 268) < 15
    assert mean_within(turns["wait"], 0.73) and abs(np.median(turns["wait"]) - 0.51) < 0.03
    assert mean_within(turns["final"], 1624), "much longer final answers"


def test_code_qa_has_the_widest_range_of_turns() -> None:
    turns = of_turns(drawn("code-qa", 1500))
    assert 100 < np.quantile(turns["turns"], 0.99) < 200 < turns["turns"].max(), "up to some 200, and now and then more"
    spread = {name: np.std(np.log(1 + of_turns(drawn(name, 400))["turns"])) for name in ("code-qa", "agentic-coding")}
    assert spread["code-qa"] > spread["agentic-coding"]
    assert 200 <= turns["output"].mean() <= 300 and 400 < turns["fresh"].mean() < 600, "low hundreds"
    assert turns["prompt"].mean() < 4000, "a light harness"


@pytest.mark.parametrize("name", ["agentic-coding", "code-qa", "office-work"])
def test_a_comment_about_a_mean_is_that_of_the_distribution(name: str) -> None:
    """`# means: about 500 new, 250 out, 1 s` stands over the three of a turn."""
    text = (builtin.FOLDER / f"{name}.yaml").read_text("utf-8")
    told = re.search(r"# means: about (\S+) new, (\S+) out, (\S+) s", text)
    turn = builtin.builtin(name).agents["main"].turns["tool"]
    if told is not None:
        means = (turn.fresh.overall_mean, turn.output.overall_mean, turn.wait.overall_mean)
        assert [round(found / float(said), 1) for found, said in zip(means, told.groups(), strict=True)] == [1, 1, 1]
    assert isinstance(turn.fresh, Lognormal), "sigma = sqrt(2 ln(mean / median))"


def test_bursty_probe_is_probes_between_blocks_of_pressure() -> None:
    made = drawn("bursty-probe", 98)
    probes = [k for k, session in enumerate(made) if len(session.calls) == 24]
    assert probes == [0, 49] and all(len(s.calls) == 16 for k, s in enumerate(made) if k not in probes)
    assert [s.start_s for s in made[:3]] == [0.0, 0.25, 0.5]
    probe = made[0]
    waits = [call.after[0].wait_s for call in probe.calls[1:]]
    assert {i + 2: wait for i, wait in enumerate(waits) if wait != 0.05} == {8: 2.0, 12: 10.0, 18: 30.0}
    longest = max(prompt_tokens(probe).values())
    assert abs(longest + probe.calls[-1].output_tokens - 110_000) < 2000


def test_cs1_is_long_chains_that_grow_to_100k() -> None:
    made = drawn("cs1", 40)
    turns = of_turns(made)
    assert turns["turns"].min() >= 109 and turns["turns"].max() <= 149
    assert turns["fresh"].min() >= 400 and turns["fresh"].max() <= 600
    assert turns["output"].min() >= 150 and turns["output"].max() <= 250
    assert mean_within(turns["wait"], 0.032)
    assert 80_000 < np.mean([max(prompt_tokens(session).values()) for session in made]) < 105_000


@real
def test_cs1_has_the_means_that_were_measured() -> None:
    rows = pq.read_table(DATA / "h100-vllm/case1_cache.parquet").to_pydict()
    turns = of_turns(drawn("cs1", 60))
    fresh, output, prompt = (np.array(rows[f"{name}_tokens"], float) for name in ("fresh", "output", "prompt"))
    by_session = np.unique(rows["session_id"], return_counts=True)[1]
    assert abs(turns["turns"].mean() + 1 - by_session.mean()) < 3 * 12 / math.sqrt(len(by_session))
    assert abs(turns["output"].mean() - output.mean()) < 10
    later = prompt > 1000
    assert abs(turns["fresh"].mean() - fresh[later].mean()) < 15
    made = [max(prompt_tokens(session).values()) for session in drawn("cs1", 60)]
    assert abs(np.mean(made) / prompt.max() - 1) < 0.2


def outline(sessions: Iterable[Session]) -> list[list[tuple[object, ...]]]:
    """What the calls of sessions wait for, begin with, add and answer, by their places."""
    found = []
    for session in sessions:
        places = {call.id: i for i, call in enumerate(session.calls)}
        found.append(
            [
                (
                    [(places[edge.call], edge.wait_s) for edge in call.after],
                    None if call.inherit is None else (places[call.inherit.call], call.inherit.tokens),
                    [(part.kind, part.tokens) for part in call.fresh],
                    call.output_tokens,
                    len(call.spans),
                )
                for call in session.calls
            ]
        )
    return found


@real
@pytest.mark.parametrize(("name", "file"), [("cs2-linear", "workload_a_linear"), ("cs2-dag", "workload_b_dag")])
def test_case_study_2_has_the_structure_of_the_published_rows(name: str, file: str) -> None:
    rows = outline(open_trace([DATA / f"h100-vllm/{file}.jsonl"]))
    assert all(row == rows[0] for row in rows)
    assert outline(drawn(name, 1)) == rows[:1]
    arrivals = builtin.builtin(name).arrivals
    assert arrivals is not None and abs(1 / arrivals.overall_mean - 0.18) < 1e-6, "sessions a second"


def test_siblings_of_case_study_2_send_prompts_of_their_own(tmp_path: Path) -> None:
    from workloom.model.reuse import reuse

    rows = list(reuse(drawn("cs2-dag", 2)))
    assert [row.fresh_tokens for row in rows] == [500] * 15 + [500] * 15, "nothing but the context is found"


def test_openclaw_is_one_chain_and_a_tree_of_agents_nobody_waits_for() -> None:
    (chain,) = drawn("openclaw-interp", 1)
    assert len(chain.calls) == 129 and {call.agent for call in chain.calls} == {"main"}
    trees = drawn("openclaw-branching", 12)
    agents = [len({call.agent for call in session.calls}) for session in trees]
    assert 15 < np.mean(agents) < 60, "some 30 in a session"
    joins = sum(len(call.after) > 1 for session in trees for call in session.calls)
    assert joins < 0.3 * sum(agents), "most are never waited for"


def test_chat_and_coding_agent_are_like_what_they_were_fitted_to() -> None:
    chats = drawn("chat", 4000)
    prompts = np.array([tokens for session in chats for tokens in prompt_tokens(session).values()])
    outputs = np.array([call.output_tokens for session in chats for call in session.calls])
    assert abs(prompts.mean() / 12_035 - 1) < 0.15 and abs(outputs.mean() / 343 - 1) < 0.08
    assert abs(len(outputs) / len(chats) / (12_031 / 8_295) - 1) < 0.08
    coding = drawn("coding-agent", 60)
    longest = max(tokens for session in coding for tokens in prompt_tokens(session).values())
    assert 300_000 < longest < 2_000_000
    assert any(part.kind == "summary" for session in coding for call in session.calls for part in call.fresh)
    roles = {call.agent.split(":")[0] for session in drawn("coding-agent", 200) for call in session.calls}
    assert roles <= set(builtin.builtin("coding-agent").agents) and "Explore" in roles


# ------------------------------------------------------------------------------------------------------- how they came


@cache
def script() -> ModuleType:
    """scripts/make_workloads.py, which deals the sessions once."""
    spec = importlib.util.spec_from_file_location("make_workloads", ROOT / "scripts/make_workloads.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.weka_parts = cache(module.weka_parts)  # type: ignore[attr-defined]
    return module


@real
@pytest.mark.long
def test_fitted_ones_are_what_the_script_writes_today() -> None:
    for name, text in script().texts(DATA).items():
        assert (builtin.FOLDER / name).read_text("utf-8") == text, (
            f"run scripts/make_workloads.py: {name} is out of date"
        )


@real
def test_coding_agent_is_fitted_to_one_half_of_the_sessions_and_tested_on_the_other() -> None:
    fitted_to, held_out = script().weka_parts(DATA)
    assert len(fitted_to) > 20 and len(held_out) > 20
    assert len(fitted_to) + len(held_out) == 51, "52 files, one of them a copy"
    assert not {session.calls for session in fitted_to} & {session.calls for session in held_out}
    begun = [{call.fresh for session in half for call in session.calls[:1]} for half in (fitted_to, held_out)]
    assert not begun[0] & begun[1], "no conversation is in both"
    told = f"fitted to {len(fitted_to)} sessions, {sum(len(s.calls) for s in fitted_to):,} calls"
    assert told in builtin.builtin("coding-agent").source


# ------------------------------------------------------------------------------------------------------------- opening


def test_names_files_and_traces_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named("cs1") == builtin.builtin("cs1") and named("nothing") is None and named("x.jsonl") is None
    Path("mine.yaml").write_text((builtin.FOLDER / "cs1.yaml").read_text("utf-8").replace("name: cs1", "name: mine"))
    mine = named("mine.yaml")
    assert mine is not None and mine.name == "mine"
    Path("cs1").write_text('{"format":"workloom","version":1}\n')
    assert named("cs1") is None, "a file of that name comes first"
    assert list(open_sessions(["cs1"])) == []


def test_a_workload_is_read_like_a_trace() -> None:
    reading = open_sessions(["cs2-linear"], seed=3, sessions=4)
    assert list(reading) == list(reading) == drawn("cs2-linear", 4, 3)
    assert reading.complete and reading.report.calls == 20 and reading.header == header(builtin.builtin("cs2-linear"))
    singles = open_sessions(["1k1k"])
    assert sum(1 for _ in singles) == SESSIONS and singles.report.duplicates == [], "equal calls are what it is for"
    with pytest.raises(UsageError, match="a workload stands by itself"):
        open_sessions(["cs1", "cs2-dag"])
    with pytest.raises(TraceError, match="did you mean the workload cs2-linear"):
        open_sessions(["cs2-liner"])


def test_the_benchmark_prints_rates_and_ratios() -> None:
    command = [sys.executable, ROOT / "benchmarks/synth_speed.py", "--seconds", "0", "--few", "3", "--many", "6", "cs1"]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert re.search(r"cs1 +[\d,]+ +[\d,]+ +[\d.]+ (met|MISSED)\n", out) and re.search(r"ratio [\d.]+\n", out)


@pytest.mark.parametrize("command", ["synth", "fit"])
def test_nothing_is_left_behind_by_a_command_that_is_interrupted(command: str, tmp_path: Path) -> None:
    goal = tmp_path / ("out.jsonl" if command == "synth" else "out.yaml")
    argv = [command, "openclaw-branching", "-o", str(goal)]
    argv += ["--sessions", "100000"] if command == "synth" else ["--generate", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "workloom.cli", *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if command == "synth":
        # Once it writes: an interrupt in the middle of imports is answered by whatever is being imported.
        while not any(path.stat().st_size for path in tmp_path.iterdir()) and process.poll() is None:
            time.sleep(0.02)
    else:
        time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said.strip().endswith("interrupted")
    assert list(tmp_path.iterdir()) == []
