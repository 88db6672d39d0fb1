"""mini-swe-agent trajectories (`*.traj.json`): one JSON document a run, all messages of one agent in order.

    1.1 (version 2)   extra.response of an assistant message is the provider's answer, with its usage; extra.timestamp
    1   (version 1)   the same, or role, content and a timestamp alone: sizes are estimated from texts

Each assistant message is a call. What follows it, until the next, are the outputs of its commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from workloom.errors import TraceError
from workloom.session import Header, Session
from workloom.traces.faults import DECODER_ERRORS, misfit
from workloom.traces.lines import content
from workloom.traces.mini_swe_agent.calls import Message, Run
from workloom.traces.reading import Intake, each

_FORMAT = re.compile(rb'"trajectory_format"\s*:\s*"mini-swe-agent-')
_INFO = re.compile(rb'\{\s*"info"\s*:\s*\{\s*"(model_stats|exit_status)"\s*:')
_CLASSIC = re.compile(rb'"(tokens_sent|trajectory)"\s*:')


class _ModelConfig(Struct):
    model_name: str | None = None


class _Config(Struct):
    model: _ModelConfig | None = None


class _Stats(Struct):
    api_calls: Annotated[int, Meta(ge=0, le=1 << 40)] | None = None


class _Info(Struct):
    model_stats: _Stats | None = None
    config: _Config | None = None
    exit_status: str | None = None


class _Document(Struct):
    messages: list[Message]
    info: _Info = msgspec.field(default_factory=_Info)
    instance_id: str | None = None


_decoder = msgspec.json.Decoder(_Document)


def sniff(head: bytes) -> bool:
    """Whether content that begins like this is a trajectory of mini-swe-agent, and none of SWE-agent."""
    head = head.lstrip()
    if not head.startswith(b"{"):
        return False
    return bool(_FORMAT.search(head) or (_INFO.match(head) and not _CLASSIC.search(head)))


def header(path: Path) -> Header:
    """Instants are of one clock."""
    return Header(source="mini-swe-agent", common_clock=True)


def _read(path: Path, intake: Intake) -> Iterator[Session]:
    """A session of each file; a bad file is one TraceError to `on_bad`. Memory: a file at a time."""
    try:
        session = _session(path, intake)
    except TraceError as error:
        intake.on_bad(error)
    else:
        if session is not None:
            yield session


read = each(_read)


def _session(path: Path, intake: Intake) -> Session | None:
    data = content(path)
    try:
        document = _decoder.decode(data)
    except DECODER_ERRORS as error:
        raise misfit(
            str(path), data, error, what="the file is not JSON" if data.strip() else "the file is empty"
        ) from None
    del data
    info, report = document.info, intake.report
    model = info.config.model.model_name if info.config is not None and info.config.model is not None else None
    run = Run(model or "", report, text=intake.text)
    for message in document.messages:
        run.feed(message)
    told = info.model_stats.api_calls if info.model_stats is not None else None
    if told is not None and told > len(run.calls):
        report.drop("calls a run counted that left no message", told - len(run.calls))
    if not run.calls:
        report.drop("trajectories with no call")
        return None
    name = document.instance_id or path.name.removesuffix(".gz").removesuffix(".zst").removesuffix(".json")
    return Session(name.removesuffix(".traj"), tuple(run.calls), run.zero_s, origin=f"mini-swe-agent:{path.name}")
