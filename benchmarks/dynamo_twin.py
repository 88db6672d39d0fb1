"""Two simulators, one plan: Dynamo's mocker and our engine, with a profile calibrated to the mocker.

python benchmarks/dynamo_twin.py [--sessions 24] [--concurrency 4 8 16] [--repeats 3]

First the mocker is probed: prefills of rising length alone, decodes of rising context and number. The step-time form is
fitted to what they took (non-negative least squares on relative errors). Then agents that share a scaffold, think, act
and send out subagents run by one plan on both, and what their users would have seen stands side by side. Needs Dynamo's
environment (tests/engines/install.py makes it); load stays on this machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import yaml
from msgspec import Struct
from scipy.optimize import nnls

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import twins
from engines import servers
from engines.runs import single
from engines.servers import Server
from engines.wiretap import tapped

from workloom.engine.profile import FitError, FrontEnd, Profile, StepCost
from workloom.records import CallRecord
from workloom.session import Header, Session
from workloom.store import open_run
from workloom.traces import native

CHUNK, SEATS, BLOCK, KV_TOKENS = 2048, 16, 16, 4096 * 16
"""What tests/engines/servers.py starts the mocker with."""
PREFILLS = (32, 128, 256, 512, 1024, 1536, 2000, 3000, 4000, 6000, 8000)
DECODES = ((1, 100), (1, 2000), (1, 4000), (1, 8000), (4, 500), (8, 500), (16, 250), (4, 2000), (8, 1500), (16, 1000))
"""(calls at once, prompt tokens of each)."""
ANSWER = 100
PS = 1e12

Run = Callable[[str, Sequence[Session], int], list[CallRecord]]
"""(name, sessions, how many at once) -> the calls, in order."""


class Row(Struct):
    """What a probe took, and the coefficients it is the sum of."""

    took_s: float
    parts: list[float]
    """Of: call, step with prefill, prefilled token, pair, step, sequence, context token."""


CALL, PREFILL, TOKEN, PAIR, STEP, SEQUENCE, CONTEXT = range(7)


def prefill_row(call: CallRecord) -> Row:
    """The time to the first token of a call that is alone: its chunks one after the other."""
    assert call.first_ns is not None and call.sent_ns is not None and call.prompt_tokens is not None
    parts = [0.0] * 7
    parts[CALL] = 1
    rest, before = call.prompt_tokens - (call.cached_tokens or 0), call.cached_tokens or 0
    while rest > 0:
        chunk = min(rest, CHUNK)
        parts[PREFILL] += 1
        parts[TOKEN] += chunk
        parts[PAIR] += chunk * before + chunk * chunk / 2
        rest, before = rest - chunk, before + chunk
    return Row((call.first_ns - call.sent_ns) / 1e9, parts)


def decode_row(calls: list[CallRecord]) -> Row:
    """The mean step while all of some calls decode: from the last first token to the first last one."""
    start = max(call.first_ns or 0 for call in calls)
    end = min(call.last_ns or 0 for call in calls)
    gaps, contexts = [], []
    for call in calls:
        at = instants(call)
        inside = at[(at >= start) & (at <= end)]
        gaps.append((inside[-1] - inside[0]) / (len(inside) - 1))
        contexts.append((call.prompt_tokens or 0) + np.searchsorted(at, (start + end) / 2))
    parts = [0.0] * 7
    parts[STEP], parts[SEQUENCE], parts[CONTEXT] = 1, len(calls), float(sum(contexts))
    return Row(float(np.mean(gaps)) / 1e9, parts)


def instants(call: CallRecord) -> np.ndarray:
    """When each chunk of a call came, in nanoseconds."""
    return np.array([run.at(i) for run in call.chunks for i in range(run.count) for _ in range(run.tokens_each)])


def calibrate(run: Run, repeats: int) -> Profile:
    """A profile of the mocker, from probes of it; prefills are probed `repeats` times."""
    prefills: list[Row] = []
    for again in range(repeats):
        sessions = [single(f"p{tokens}", tokens, 2) for tokens in PREFILLS]
        prefills += [prefill_row(call) for call in run(f"prefill-{again}", sessions, 1)]
    decodes: list[Row] = []
    for at_once, tokens in DECODES:
        sessions = [single(f"d{i}", tokens, ANSWER) for i in range(at_once)]
        decodes.append(decode_row(run(f"decode-{at_once}-{tokens}", sessions, at_once)))
    decode, decode_off = fit(decodes, (STEP, SEQUENCE, CONTEXT))
    prefill, prefill_off = fit(prefills, (CALL, PREFILL, TOKEN, PAIR))
    off = np.concatenate([decode_off, prefill_off])
    return Profile(
        name="dynamo-mocker",
        model="tiny",
        gpu="none: simulated",
        gpus=1,
        dtype="none",
        source="benchmarks/dynamo_twin.py: probes of ai-dynamo's mocker over HTTP",
        error=FitError(float(prefill_off.max()), float(decode_off.max()), None, float(off.mean()), len(off)),
        not_identified={"step.launch_ps": "the mocker has none", "max_model_len": "what its KV cache holds"},
        step=StepCost(
            weights_ps=round(decode[0] * PS),
            sequence_ps=round(decode[1] * PS),
            context_token_ps=round(decode[2] * PS),
            prefill_base_ps=round(prefill[1] * PS),
            prefill_token_ps=round(prefill[2] * PS),
            pair_ps=2 * round(prefill[3] * PS / 2),
        ),
        front_end=FrontEnd(call_ps=round(prefill[0] * PS)),
        max_model_len=KV_TOKENS,
        max_num_seqs=SEATS,
        max_batched_tokens=CHUNK,
        block_tokens=BLOCK,
        kv_tokens=KV_TOKENS,
    )


def fit(rows: list[Row], columns: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients in seconds, none negative, and the relative error of each row."""
    took = np.array([row.took_s for row in rows])
    parts = np.array([[row.parts[column] for column in columns] for row in rows])
    scale = parts.max(axis=0)
    found, _ = nnls(parts / scale / took[:, None], np.ones(len(rows)))
    coefficients = found / scale
    return coefficients, np.abs(parts @ coefficients / took - 1)


def on_mocker(server: Server, folder: Path) -> Run:
    """Runs on the mocker, by the command line."""

    def run(name: str, sessions: Sequence[Session], at_once: int) -> list[CallRecord]:
        target = ("--url", server.url, "--model", "tiny", "--endpoint", "completions")
        return command(folder / f"{name}-live", sessions, at_once, *target)

    return run


def on_engine(profile: Path, folder: Path) -> Run:
    """Runs on our engine."""

    def run(name: str, sessions: Sequence[Session], at_once: int) -> list[CallRecord]:
        return command(folder / f"{name}-virtual", sessions, at_once, "--engine", str(profile))

    return run


def command(folder: Path, sessions: Sequence[Session], at_once: int, *target: str) -> list[CallRecord]:
    """`workloom run`: the calls it recorded."""
    folder.mkdir()
    trace = folder / "trace.jsonl"
    native.write(trace, Header(source="dynamo_twin"), sessions)
    words = [sys.executable, "-m", "workloom.cli", "run", trace, "--concurrency", at_once, "-o", folder / "run"]
    done = subprocess.run([*map(str, words), *target], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    calls = list(open_run(folder / "run").calls())
    bad = [call for call in calls if call.status != "ok"]
    if bad:
        sys.exit(f"{len(bad)} calls failed, the first: {bad[0].error}")
    return calls


def figures(calls: list[CallRecord]) -> dict[str, float]:
    """What the users of these agents would have seen; latencies in milliseconds."""
    ttft = [((c.first_ns or 0) - c.due_ns) / 1e6 for c in calls]
    e2e = [((c.last_ns or 0) - c.due_ns) / 1e6 for c in calls]
    tbc = np.concatenate([np.diff(instants(c)) for c in calls]) / 1e6
    out = {}
    for name, values in (("TTFT", ttft), ("TBC", tbc), ("E2E", e2e)):
        for p in (50, 95):
            out[f"{name} p{p}, ms"] = float(np.percentile(values, p))
    out["hit rate"] = sum(c.cached_tokens or 0 for c in calls) / sum(c.prompt_tokens or 0 for c in calls)
    out["makespan, s"] = max(c.done_ns or 0 for c in calls) / 1e9
    return out


def compare(mocker: list[CallRecord], engine: list[CallRecord]) -> None:
    theirs, ours = figures(mocker), figures(engine)
    print(f"  {'':<16}{'mocker':>10}{'workloom':>10}{'apart':>9}")
    for name, value in theirs.items():
        print(f"  {name:<16}{value:>10.3f}{ours[name]:>10.3f}{ours[name] / value - 1:>+9.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=24, help="of each run (24)")
    parser.add_argument("--concurrency", type=int, nargs="*", default=[4, 8, 16], help="sessions at once (4 8 16)")
    parser.add_argument("--repeats", type=int, default=3, help="of each prefill probe (3)")
    parser.add_argument("--keep", type=Path, help="write the calibrated profile there")
    options = parser.parse_args()
    with TemporaryDirectory() as scratch, servers.dynamo() as server, tapped(server) as (seen, _):
        folder = Path(scratch)
        live = on_mocker(seen, folder)
        live("warm", [single("w", 100, 20)], 1)
        profile = calibrate(live, options.repeats)
        path = options.keep or folder / "dynamo-mocker.yaml"
        path.write_text(yaml.safe_dump(msgspec.to_builtins(profile), sort_keys=False))
        step, error = profile.step, profile.error
        print(
            f"calibrated on {error.points} probes: mean error {error.mean:.1%}, "
            f"prefill at most {error.prefill_max:.1%}, decode at most {error.decode_max:.1%}\n"
            f"  a step {step.weights_ps / 1e9:.3f} ms, {step.sequence_ps / 1e6:.2f} us a call, "
            f"{step.context_token_ps / 1e6:.4f} us a token of context\n"
            f"  a chunk {step.prefill_base_ps / 1e9:.3f} ms, {step.prefill_token_ps / 1e6:.2f} us a token, "
            f"{step.pair_ps} ps a pair; a call {profile.front_end.call_ps / 1e9:.2f} ms"
        )
        virtual = on_engine(path, folder)
        size = twins.Size(options.sessions, calls=(3, 6), fresh=(100, 1200), output=(40, 100), wait_s=(0.1, 0.6))
        agents = list(twins.sessions(size, seed=1))
        for at_once in options.concurrency:
            print(f"\n{len(agents)} sessions, {at_once} at once")
            compare(live(f"plan-{at_once}", agents, at_once), virtual(f"plan-{at_once}", agents, at_once))


if __name__ == "__main__":
    main()
