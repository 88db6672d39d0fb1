"""Whatever happened to a trace file, what comes out is a valid trace or a TraceError: no other exception, no hang."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import FrameType

import pytest
from mutations import mutate, window
from samples import samples, save

from workloom.errors import TraceError
from workloom.session import validate
from workloom.traces import Report, open_trace, sniff

SHARED = Path("../shared/data")
REAL = {
    "claude-code": ("claude-code/short.jsonl", "claude-code/subagent.jsonl", "claude-code/tool_heavy.jsonl",
                    "claude-code/ae4a77f8-aedd-4bc1-888f-c94edc91af04.jsonl"),
    "codex": tuple(f"codex/{path.name}" for path in sorted((SHARED / "codex").glob("*.jsonl"))),
    "openclaw": ("openclaw/interp-session.jsonl",),
    "openclaw-dag": ("openclaw/interp-dag.json", "openclaw/branching-dag.json"),
    "mooncake": ("mooncake/conversation_trace.jsonl", "mooncake/synthetic_trace.jsonl"),
    "veeksha": ("h100-vllm/workload_a_linear.jsonl", "h100-vllm/workload_b_dag.jsonl"),
    "weka": ("weka/trace_0026.json", "weka/trace_0057.json", "weka/trace_0291.json", "weka/trace_0277.json"),
}  # fmt: skip
FEW, MANY = 150, 20_000
SECONDS = 20
"""Longer than this for one file of at most some 200 KB is a hang."""


@contextmanager
def no_hang(case: str) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"{case}: still reading after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def survive(folder: Path, victim: Path, format: str, count: int) -> None:
    """Mutations 0 to `count` of one file, others of its folder untouched, read as the format or by sniffing."""
    whole = victim.read_bytes()
    reads = 0
    for seed in range(count):
        random = Random(f"{victim.name} {seed}")
        victim.write_bytes(mutate(window(whole, random), random))
        named, skip_bad = (format if random.random() < 0.7 else None), random.random() < 0.5
        case = f"{victim.name}, mutation {seed}, --format {named}, skip_bad={skip_bad}"
        with no_hang(case):
            counted = Report()
            try:
                reading = open_trace([folder], format=named, skip_bad=skip_bad, text=random.random() < 0.2)
                for session in reading:
                    validate(session)
                    counted.count(session)
                    reads += 1
            except TraceError as error:
                assert error.what and (error.where or error.hint or error.found), case
            except Exception as error:
                raise AssertionError(f"{case}: {error!r}") from error
            else:
                assert sums(reading.report) == sums(counted), case
    assert reads, "some mutations leave something to read, or this test shows nothing"


def sums(report: Report) -> tuple[int, ...]:
    """What a report counts, some readers by columns of their own."""
    waits = sum(count for count, _ in report.waits.values())
    return (
        report.sessions, report.calls, report.prompt_tokens, report.output_tokens, report.subagents,
        report.zero_outputs, waits,
    )  # fmt: skip


def _real() -> list[tuple[str, str]]:
    return [(format, name) for format, names in REAL.items() for name in names]


def _fuzz_real(tmp_path: Path, format: str, name: str, count: int) -> None:
    source = SHARED / name
    if not source.exists():
        pytest.skip(f"{source} is not here: real samples do not come with the repository")
    victim = tmp_path / source.name
    victim.write_bytes(source.read_bytes())
    companions = source.with_suffix("")
    if companions.is_dir():
        shutil.copytree(companions, tmp_path / companions.name)
        for path in (tmp_path / companions.name).rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
    survive(tmp_path, victim, format, count)


@pytest.mark.parametrize(("format", "name"), _real())
def test_damaged_real_files(tmp_path: Path, format: str, name: str) -> None:
    _fuzz_real(tmp_path, format, name, FEW)


@pytest.mark.long
@pytest.mark.parametrize(("format", "name"), _real())
def test_damaged_real_files_long(tmp_path: Path, format: str, name: str) -> None:
    _fuzz_real(tmp_path, format, name, MANY)


def _made(tmp_path: Path, format: str, count: int) -> None:
    folder = save(tmp_path, samples()[format](lambda field: f"text of {field}", lambda field: f"name-{field}"))
    for victim in sorted(path for path in folder.rglob("*") if path.is_file()):
        survive(folder, victim, format, count)
        save(tmp_path, samples()[format](lambda field: f"text of {field}", lambda field: f"name-{field}"))


@pytest.mark.parametrize("format", samples())
def test_damaged_samples(tmp_path: Path, format: str) -> None:
    _made(tmp_path, format, FEW)


@pytest.mark.long
@pytest.mark.parametrize("format", samples())
def test_damaged_samples_long(tmp_path: Path, format: str) -> None:
    _made(tmp_path, format, MANY)


def test_undamaged_samples_are_told_apart(tmp_path: Path) -> None:
    for format, files in samples().items():
        folder = save(tmp_path / format, files(lambda field: f"text of {field}", lambda field: f"name-{field}"))
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            assert sniff(path) in (format, None), path
        reading = open_trace([folder])
        assert list(reading)
        assert reading.format == format
