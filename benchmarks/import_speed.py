"""How fast traces are read and imported, in MB of source per second of one core, on real files.

    python benchmarks/import_speed.py [--data ../shared/data] [--seconds 2]

read: files to sessions, counted and checked, as every command does it. import: that, made anonymous and written as a
compressed native trace. Times are CPU times of this process, the best of the rounds that fit into `--seconds`. Goals:
60 MB/s for WEKA and Mooncake, 30 MB/s for the transcripts of agents, of reading.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from workloom.traces import native, open_trace
from workloom.traces.privacy import Privacy, anonymous, salt

GOALS = {"weka": 60, "mooncake": 60, "claude-code": 30, "codex": 30, "openclaw/interp-session.jsonl": 30}


def read(source: Path) -> int:
    """Calls of a trace that is read to its end."""
    return sum(len(session.calls) for session in open_trace([source]))


def take(source: Path) -> int:
    """Import a trace into a temporary file."""
    privacy = Privacy(salt(None))
    with tempfile.TemporaryDirectory() as folder:
        reading = open_trace([source])
        sessions = (anonymous(session, privacy) for session in reading)
        return native.write(Path(folder) / "t.jsonl.zst", reading.header, sessions, validated=True)


def best(work: Callable[[Path], int], source: Path, seconds: float) -> float:
    """CPU seconds of the fastest round."""
    rounds: list[float] = []
    end = time.monotonic() + seconds
    while not rounds or time.monotonic() < end:
        begun = time.process_time()
        work(source)
        rounds.append(time.process_time() - begun)
    return min(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    print(f"{'':34}{'MB':>8}{'read MB/s':>12}{'goal':>6}{'':>8}{'import MB/s':>14}")
    for name, goal in GOALS.items():
        source = options.data / name
        if not source.exists():
            print(f"{name:34}  not here: {source}")
            continue
        files = [source] if source.is_file() else [p for p in source.rglob("*") if p.suffix in (".json", ".jsonl")]
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        reading = megabytes / best(read, source, options.seconds)
        importing = megabytes / best(take, source, options.seconds)
        verdict = "met" if reading >= goal else "MISSED"
        print(f"{name:34}{megabytes:8.2f}{reading:12.1f}{goal:6}{verdict:>8}{importing:14.1f}")


if __name__ == "__main__":
    main()
