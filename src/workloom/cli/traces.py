"""`workloom import`, `anonymize` and `export`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from workloom.cli.options import PrivacyOptions, TraceOptions
from workloom.cli.show import print_rows
from workloom.errors import TraceError, UsageError
from workloom.model.describe import many, notes
from workloom.session import Session
from workloom.traces import Reading, Report, native, open_trace
from workloom.traces.export import Export, Prepared
from workloom.traces.privacy import Privacy, anonymous, salt


def import_(source: list[str], out: str, json: bool, options: TraceOptions, privacy: PrivacyOptions) -> None:
    """Read, make anonymous, write, say what was understood."""
    goal = Path(out)
    if goal.exists():
        raise UsageError("the trace is there already", where=out, hint="choose another name with -o")
    reading = open_trace(source, format=options.format, skip_bad=options.skip_bad, text=privacy.keep_text)
    kept = Privacy(salt(privacy.salt), hash_names=privacy.hash_names, keep_text=privacy.keep_text)
    header = msgspec.structs.replace(reading.header, source=_source(reading))
    native.write(goal, header, _anonymous(reading, kept), validated=True)
    report = reading.report
    if json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=1).decode())
    else:
        print_rows(_rows(report) + _kept(privacy) + notes(report))
    print(f"{report.sessions:,} sessions, {report.calls:,} calls written to {out}", file=sys.stderr)


def _source(reading: Reading) -> str:
    """What the header says the trace is from: formats are no secrets, what a native header says may be."""
    return reading.format if reading.format != "native" else "anonymized"


def _anonymous(reading: Reading, privacy: Privacy) -> Iterator[Session]:
    """The sessions to write. Raises TraceError where there are none: then nothing is written."""
    for session in reading:
        yield anonymous(session, privacy)
    report = reading.report
    if not report.sessions:
        met = [f"{count:,} x {what}" for what, count in report.dropped.items()]
        met += [f"{bad.where}: {bad.why}" for bad in report.skipped[:3]]
        raise TraceError(
            "no session was found",
            where=", ".join(map(str, reading.paths[:3])) + (", ..." if len(reading.paths) > 3 else ""),
            expected=f"sessions ({report.format})",
            found="; ".join(met) or "nothing of that format",
        )


def _rows(report: Report) -> list[tuple[str, str]]:
    """The size of a trace."""
    rows = [
        ("format", f"{report.format}, {many(report.files, 'file')}"),
        ("sessions", f"{report.sessions:,}"),
        ("calls", f"{report.calls:,}"),
        ("subagents", f"{report.subagents:,}"),
        ("prompt tokens", f"{report.prompt_tokens:,}"),
        ("output tokens", f"{report.output_tokens:,}" + f" ({report.zero_outputs:,} calls without output)"),
    ]
    for gap, (count, seconds) in sorted(report.waits.items()):
        rows.append((f"waits, {gap}", f"{count:,}: {seconds:,.1f} s in all"))
    return rows


def _kept(privacy: PrivacyOptions) -> list[tuple[str, str]]:
    """What privacy did."""
    names = "hashed" if privacy.hash_names else "kept"
    salted = "a salt that is kept nowhere" if privacy.salt is None else "the phrase given"
    text = "kept" if privacy.keep_text else "none kept"
    return [("privacy", f"texts: {text}; names of tools, agents, models: {names}; ids: hashed with {salted}")]


def export(trace: list[str], format: str, out: str, options: TraceOptions, dry_run: bool, json: bool) -> None:
    """Write, read back, list what was lost, keep."""
    reading = open_trace(trace, format=options.format, skip_bad=options.skip_bad, text=True)
    prepared = Prepared(reading, format, Path(out))
    try:
        if json:
            print(msgspec.json.format(msgspec.json.encode(prepared.told), indent=1).decode())
        else:
            print_rows(_exported(prepared.told))
        sys.stdout.flush()
        if not dry_run:
            prepared.keep()
            print(f"written to {out}", file=sys.stderr)
    finally:
        prepared.close()


def _exported(told: Export) -> list[tuple[str, str]]:
    rows = [
        ("format", told.format),
        ("sessions", f"{told.sessions:,} in the trace, {told.sessions_back:,} in what is written"),
        ("calls", f"{told.calls:,} in the trace, {told.calls_back:,} in what is written"),
    ]
    rows += [("left out", f"{count:,} x {what}") for what, count in told.left_out.items()]
    rows += [("changed", f"{count:,} x {what}") for what, count in told.changed.items()]
    rows += [("assumed", what) for what in told.assumptions]
    rows += [("not held", f"{count:,} x {what}") for what, count in told.lost.items()]
    return rows + ([] if told.lost else [("not held", "nothing of a call: reading it back gives the same")])
