"""From files to sessions. A format is one module and one entry in `READERS`; `open_trace` finds the right one."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from workloom.errors import TraceError, UsageError, nearest
from workloom.session import Header
from workloom.traces import (
    aiperf_dag,
    azure,
    bailian,
    burstgpt,
    claude_code,
    codex,
    csv_table,
    langfuse,
    litellm,
    mini_swe_agent,
    mooncake,
    native,
    openclaw,
    otel,
    tracelab,
    trie,
    veeksha,
    weka,
)
from workloom.traces.lines import BOM, head
from workloom.traces.openclaw import dag as openclaw_dag
from workloom.traces.reading import Duplicate, Intake, Reader, Reading, Report, Skipped, Source, expand

HEAD_BYTES = 1 << 16
"""How much of a file is looked at to tell its format."""

READERS: dict[str, Reader] = {
    "native": Reader(native.sniff, native.header, native.read, validates=True, headed=True),
    "claude-code": Reader(claude_code.sniff, claude_code.header, claude_code.read),
    "codex": Reader(codex.sniff, codex.header, codex.read),
    "openclaw": Reader(openclaw.sniff, openclaw.header, openclaw.read),
    "openclaw-dag": Reader(openclaw_dag.sniff, openclaw_dag.header, openclaw_dag.read),
    "azure": Reader(azure.sniff, azure.header, azure.read),
    "burstgpt": Reader(burstgpt.sniff, burstgpt.header, burstgpt.read),
    "csv": Reader(csv_table.sniff, csv_table.header, csv_table.read, headed=True),
    "bailian": Reader(bailian.sniff, bailian.header, bailian.read, validates=True, counts=True),
    "mooncake": Reader(mooncake.sniff, mooncake.header, mooncake.read, validates=True, counts=True),
    "trie": Reader(trie.sniff, trie.header, trie.read),
    "veeksha": Reader(veeksha.sniff, veeksha.header, veeksha.read),
    "mini-swe-agent": Reader(mini_swe_agent.sniff, mini_swe_agent.header, mini_swe_agent.read),
    "aiperf-dag": Reader(aiperf_dag.sniff, aiperf_dag.header, aiperf_dag.read),
    "tracelab": Reader(tracelab.sniff, tracelab.header, tracelab.read),
    "litellm": Reader(litellm.sniff, litellm.header, litellm.read),
    "langfuse": Reader(langfuse.sniff, langfuse.header, langfuse.read),
    "otel": Reader(otel.sniff, otel.header, otel.read),
    "weka": Reader(weka.sniff, weka.header, weka.read),
}

__all__ = ["READERS", "Duplicate", "Intake", "Reader", "Reading", "Report", "Skipped", "open_trace", "sniff"]


def open_trace(
    paths: Sequence[str | PathLike[str]] | str,
    *,
    format: str | None = None,
    skip_bad: bool = False,
    text: bool = False,
) -> Reading:
    """Open files, folders and globs; each file's format is told from its content unless it is given.

    Sessions are read only when the result is iterated. With `skip_bad` a file, line or session that is not what its
    format promises is counted in the report and left out; without, it is a TraceError. Files below a folder that no
    reader knows are no traces, and are listed in the report. `text`: keep what parts and answers say.
    """
    if format is not None and format not in READERS:
        close = nearest(format, list(READERS))
        raise UsageError(
            "there is no such trace format",
            where="--format",
            expected=" | ".join(READERS),
            found=format,
            hint=f"did you mean {close}?" if close else None,
        )
    skipped: list[TraceError] = []
    ignored: list[Path] = []
    files: dict[str, list[Path]] = {}
    headers: dict[str, Header] = {}
    for path, walked in expand(paths).items():
        try:
            name = format or sniff(path)
            if name is None:
                if walked:
                    ignored.append(path)
                    continue
                raise _unknown(path)
            header = READERS[name].header(path)
        except TraceError as error:
            if not skip_bad:
                raise
            skipped.append(error)
            continue
        headers[name] = _merge(headers.get(name), header) if READERS[name].headed else headers.get(name, header)
        files.setdefault(name, []).append(path)
    if not files:
        raise skipped[0] if skipped else _unknown(ignored[0])
    whole: Header | None = None
    for header in headers.values():
        whole = _merge(whole, header)
    assert whole is not None
    sources = [Source(name, READERS[name], headers[name], tuple(found)) for name, found in files.items()]
    return Reading(sources, whole, skip_bad=skip_bad, skipped=skipped, ignored=ignored, text=text)


def sniff(path: Path) -> str | None:
    """The name of the first format that a file's content looks like; None if there is none. Raises TraceError."""
    beginning = head(path, HEAD_BYTES).removeprefix(BOM)
    return next((name for name, reader in READERS.items() if reader.sniff(beginning)), None)


def _unknown(path: Path) -> TraceError:
    beginning = head(path, 60)
    hint = "name the format with --format if it is one of these" if beginning.strip() else None
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        hint = "this is UTF-16: save it as UTF-8"
    return TraceError(
        "no reader knows this file" if beginning.strip() else "the file is empty",
        where=str(path),
        expected=f"one of the formats {', '.join(READERS)}",
        found=f"{beginning!r}" if beginning else "no bytes",
        hint=hint,
    )


def _merge(one: Header | None, other: Header) -> Header:
    """The header of several files as one trace: what they do not agree on is not said."""
    if one is None or one == other:
        return other
    return Header(
        source=one.source if one.source == other.source else f"{one.source}, {other.source}",
        block_tokens=one.block_tokens if one.block_tokens == other.block_tokens else None,
        common_clock=False,
    )
