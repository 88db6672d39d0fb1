"""Write the workloads of src/workloom/data/workloads that are fitted to real traces.

    python scripts/make_workloads.py TRACES [FOLDER]

TRACES is a folder with weka/, openclaw/ and mooncake/ (the shared data of the project; not part of it).
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from workloom import seeds
from workloom.answers.fidelity.distance import Counts, Distance, between, halves, points
from workloom.model.facts import facts
from workloom.model.fit import Fitted, fit
from workloom.model.measures import sample
from workloom.model.workload.builtin import FOLDER
from workloom.model.workload.file import dump
from workloom.session import Header, Session, prompt_tokens
from workloom.traces import open_trace

DEALS = 2000


@cache
def weka_parts(traces: Path) -> tuple[list[Session], list[Session]]:
    """The WEKA sessions in two halves: `coding-agent` is fitted to the first, and tested on the second.

    A copy of a session is left out, and sessions that begin with the same prompt (one conversation, recorded on from
    several places) stay together, or the test would be on what was fitted. Of DEALS halves dealt by chance these are
    the ones most like each other: halves that are not would fail whatever is fitted to them. Only the real sessions
    decide, before anything is fitted.
    """
    groups: dict[int, list[Session]] = {}
    known = set()
    for session in open_trace([traces / "weka"]):
        if session.calls not in known:
            known.add(session.calls)
            groups.setdefault(_begins(session), []).append(session)
    sessions = [session for group in groups.values() for session in group]
    places = {session.id: place for place, session in enumerate(sessions)}
    measured = list(sample(facts(sessions)).values.values())
    counts = [Counts(values, points(values)) for values in measured]
    stream = seeds.stream(0, "weka", "deal")
    bands = [halves(values, stream, rounds=200, level=0.9) for values in measured]
    best: tuple[float, list[int]] | None = None
    for _ in range(DEALS):
        order = [list(groups.values())[i] for i in stream.permutation(len(groups)).tolist()]
        dealt = [places[session.id] for group in order for session in group]
        one, two = dealt[: len(dealt) // 2], dealt[len(dealt) // 2 :]
        if {_begins(sessions[i]) for i in one} & {_begins(sessions[i]) for i in two}:
            continue
        worst = max(_apart(table, band, one, two) for table, band in zip(counts, bands, strict=True))
        if best is None or worst < best[0]:
            best = worst, one
    assert best is not None
    return [sessions[i] for i in sorted(best[1])], [sessions[i] for i in range(len(sessions)) if i not in set(best[1])]


def _begins(session: Session) -> int:
    return prompt_tokens(session)[session.calls[0].id]


def _apart(counts: Counts, band: Distance, one: list[int], two: list[int]) -> float:
    """How far two halves are from each other, by KS and by Wasserstein's distance, over what is usual."""
    cdfs = counts.cdf(np.array(one)), counts.cdf(np.array(two))
    if cdfs[0] is None or cdfs[1] is None:
        return float("inf")
    found = between(cdfs[0], cdfs[1], counts.points)
    return max(
        found.ks / band.ks if band.ks else 0.0, found.wasserstein / band.wasserstein if band.wasserstein else 0.0
    )


def coding_agent(traces: Path) -> Fitted:
    fitted_to, _ = weka_parts(traces)
    return fit(
        facts(fitted_to),
        Header(source="WEKA kv-cache-tester traces", block_tokens=64),
        name="coding-agent",
        about="Claude Code sessions of hundreds of calls, contexts of 20k to 900k tokens, compaction, subagents",
    )


def openclaw(traces: Path, which: str, about: str) -> Fitted:
    reading = open_trace([traces / "openclaw" / f"{which}-dag.json"])
    header = Header(source=f"the published {which}-dag.json of OpenClaw")
    return fit(facts(reading), header, name=f"openclaw-{which}", about=about, choosing="quantiles")


def chat(traces: Path) -> Fitted:
    reading = open_trace([traces / "mooncake" / "conversation_trace.jsonl"])
    header = Header(source="Mooncake's conversation trace", block_tokens=512, common_clock=True)
    return fit(
        facts(reading), header, name="chat", about="short chats with long prompts, an hour of Mooncake's service"
    )


def texts(traces: Path) -> dict[str, str]:
    """The files by name."""
    made = [
        coding_agent(traces),
        openclaw(traces, "interp", "one agent in one long chain of 129 calls, tools of milliseconds"),
        openclaw(traces, "branching", "agents that spawn agents and go on, 30 in a session, most never waited for"),
        chat(traces),
    ]
    return {f"{f.workload.name}.yaml": dump(replace(f.workload, users=None), f.notes) for f in made}


def main() -> None:
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else FOLDER
    for name, text in texts(Path(sys.argv[1])).items():
        (folder / name).write_text(text, "utf-8")
        print(f"{name}: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
