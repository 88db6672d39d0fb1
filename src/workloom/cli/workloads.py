"""`workloom fit`, `synth`, `workloads` and `schema`."""

from __future__ import annotations

import json as jsons
import sys

import msgspec

from workloom.cli.options import TraceOptions
from workloom.cli.show import console, print_rows
from workloom.cli.write import new_file, write_new
from workloom.errors import UsageError, nearest
from workloom.model.describe import many
from workloom.model.fit.margins import Choosing
from workloom.model.workload import builtin
from workloom.model.workload.file import dump, schema
from workloom.model.workload.generate import generate, header
from workloom.model.workload.opening import named
from workloom.traces import native

YAML = (".yaml", ".yml")


def fit(trace: list[str], out: str, name: str | None, choosing: Choosing, json: bool, options: TraceOptions) -> None:
    """Fit, write, say how every distribution was chosen."""
    from workloom.model.facts import facts
    from workloom.model.fit import fit as fitted

    goal = new_file(out, "the workload")
    if goal.suffix not in YAML:
        raise UsageError("a workload is a YAML file", where=out, expected=" or ".join(YAML), hint=f"-o {out}.yaml")
    reading = options.open(trace)
    found = fitted(facts(reading), reading.header, name=name or goal.stem, choosing=choosing)
    write_new(goal, dump(found.workload, found.notes))
    if json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    else:
        from workloom.model.fit.show import tables

        for table in tables(found):
            console().print(table)
    print(
        f"fitted to {many(found.sessions, 'session')}, {many(found.calls, 'call')}; written to {out}; "
        f"`workloom synth {out} --sessions N -o trace.jsonl.zst` makes more of it",
        file=sys.stderr,
    )


def synth(workload: str, sessions: int | None, seed: int, out: str) -> None:
    """Draw sessions, write them as they are drawn."""
    found = named(workload)
    if found is None:
        raise _no_such(workload)
    if sessions is None or sessions < 1:
        raise UsageError("a trace has at least one session", where="--sessions", expected="1 or more", found=sessions)
    goal = new_file(out, "the trace")
    if goal.suffix in YAML:
        raise UsageError("a trace is no YAML file", where=out, expected=".jsonl or .jsonl.zst")
    count = native.write(goal, header(found), generate(found, seed, sessions), validated=True)
    print(f"{many(count, 'session')} of {found.name}, seed {seed}, written to {out}", file=sys.stderr)


def workloads(name: str | None, json: bool) -> None:
    """The workloads that come with workloom; one of them as its file."""
    if name is not None:
        found = named(name)
        if found is None:
            raise _no_such(name)
        print(dump(found) if not json else msgspec.json.format(msgspec.json.encode(found), indent=1).decode(), end="")
        return
    every = [builtin.builtin(name) for name in builtin.names()]
    if json:
        print(msgspec.json.format(msgspec.json.encode(every), indent=1).decode())
        return
    print_rows([(workload.name, workload.about) for workload in every])


def _no_such(name: str) -> UsageError:
    known = list(builtin.names())
    close = nearest(name, known)
    hint = f"did you mean {close}?" if close else "`workloom workloads` lists them with a line about each"
    expected = f"a .yaml file, or one of {', '.join(known)}"
    return UsageError("there is no such workload", expected=expected, found=name, hint=hint)


def print_schema() -> None:
    """The JSON Schema of a workload file."""
    print(jsons.dumps(schema(), indent=1))
