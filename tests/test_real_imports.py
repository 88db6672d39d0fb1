"""Every real trace is told by its content, imports, and runs at once: all of its calls complete."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workloom.traces import sniff

DATA = Path("../shared/data")
CALLS = {
    "claude-code": ("claude-code", 238),
    "codex": ("codex", 109),
    "openclaw": ("openclaw-dag + openclaw", 834),
    "mooncake/synthetic_trace.jsonl": ("mooncake", 3993),
    "h100-vllm": ("veeksha", 300),
    "weka": ("weka", 4652),
}
"""Format and calls of each: formats.md and the readers' own tests say where the numbers come from."""

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not here: real samples do not come along")


def workloom(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "workloom.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_file_is_told_by_its_content() -> None:
    """All that may be a trace by its name; the parquet and prom files are measurements."""
    for path in sorted(DATA.rglob("*")):
        if path.suffix in (".json", ".jsonl"):
            folder = path.relative_to(DATA).parts[0]
            expected = {"h100-vllm": "veeksha"}.get(folder, folder)
            assert sniff(path) in (expected, f"{expected}-dag"), path


@pytest.mark.parametrize("source", CALLS)
def test_what_is_imported_runs_at_once(tmp_path: Path, source: str) -> None:
    format, calls = CALLS[source]
    out = tmp_path / "t.jsonl.zst"
    report = json.loads(workloom("import", DATA / source, "-o", out, "--json"))
    assert (report["format"], report["calls"], report["skipped"]) == (format, calls, [])
    engine = ("--engine", "llama-3.1-70b-h200x4", "--max-model-len", "2000000", "--kv-tokens", "inf")
    workloom("run", out, *engine, "--concurrency", "8", "-o", tmp_path / "run")
    ran = json.loads(workloom("show", tmp_path / "run", "--whole", "--json"))
    assert (ran["calls"]["recorded"], ran["calls"]["ok"]) == (calls, calls)
