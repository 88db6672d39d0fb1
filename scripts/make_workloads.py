"""Write the workloads of src/workloom/data/workloads that are fitted to real traces.

    python scripts/make_workloads.py TRACES [FOLDER]

TRACES is a folder with weka/, openclaw/ and mooncake/ (the shared data of the project; not part of it).
"""

from __future__ import annotations

import sys
from pathlib import Path

from msgspec.structs import replace

from workloom.model.facts import facts
from workloom.model.fit import Fitted, fit
from workloom.model.workload.builtin import FOLDER
from workloom.model.workload.file import dump
from workloom.session import Header, Session, prompt_tokens
from workloom.traces import open_trace


def weka_parts(traces: Path) -> tuple[list[Session], list[Session]]:
    """The WEKA sessions, dealt by their longest prompt: `coding-agent` is fitted to the first, tested on the others.

    Dealt so, the two halves are alike; halves dealt by chance often are not, whatever is fitted to them.
    """
    sessions = list(open_trace([traces / "weka"]))
    longest = {session.id: max(prompt_tokens(session).values()) for session in sessions}
    sessions.sort(key=lambda session: (-longest[session.id], session.id))
    return sessions[1::2], sessions[0::2]


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
