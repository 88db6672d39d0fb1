"""What a check of a server finds out."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

Verdict = Literal["yes", "no", "ignored", "unknown"]
"""yes: it does; no: it does not, or refuses; ignored: taken without complaint and without effect; unknown: not told."""

Area = Literal["server", "endpoints", "stream", "length", "prompt", "tools", "faults"]
AREAS: tuple[Area, ...] = get_args(Area)
"""In the order in which they are shown."""

_LONGEST = 200
"""Characters of evidence."""


class Finding(Struct, frozen=True):
    """One question to a server. `name` is the question, `evidence` one line of what was seen."""

    area: Area
    name: str
    verdict: Verdict
    evidence: str


class Report(Struct, frozen=True):
    """All that was found. `drivable`: one endpoint streams an answer whose tokens can be counted.

    `model` is the name asked for, `models` those listed (None: no list), `max_model_len` the longest call in tokens
    where the server tells. `reason` says why it cannot be driven. `options` are what `workloom run` needs for this
    server; `advice` says what the findings mean, a sentence each.
    """

    url: str
    family: str | None
    model: str
    models: list[str] | None
    max_model_len: int | None
    findings: list[Finding]
    drivable: bool
    reason: str | None
    hint: str | None
    options: list[str]
    advice: list[str]
    took_s: float

    def finding(self, name: str) -> Finding:
        """The finding of a name; KeyError when there is none."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)


def found(area: Area, name: str, verdict: Verdict, evidence: str) -> Finding:
    """A finding whose evidence is one printable line."""
    return Finding(area, name, verdict, one_line(evidence))


def one_line(text: str) -> str:
    """Text for one line of a terminal: what a server sends must not steer it."""
    line = " ".join(text.split())
    line = "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
