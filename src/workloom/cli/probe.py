"""`workloom probe`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cyclopts import Group, Parameter

from workloom.cli.options import LoadOptions, RunOptions, TraceOptions, Whole
from workloom.cli.write import next_free, write_new
from workloom.errors import UsageError

if TYPE_CHECKING:
    from workloom.answers.probe import Cache, Decode, Lab, Prefill, Stress
    from workloom.answers.probe.stress import Offer
    from workloom.cli.engine import EngineOptions
    from workloom.cli.server import ServerOptions, TextOptions, WatchOptions
    from workloom.plan import Limits, Plan, Warmup

PROBE = Group("Probe", sort_key=1)
What = Literal["prefill", "decode", "cache", "stress"]
REPEATS, QUICK = 6, 3


@Parameter(name="*", group=PROBE)
@dataclass(frozen=True)
class ProbeOptions:
    """What is measured, and for how long."""

    quick: Annotated[bool, Parameter(negative="")] = False
    "3 repeats instead of 6, so that intervals carry 75 % instead of 95 %; stress: no levels between the doublings."
    repeats: Whole = None
    "Of every point (default 6: the fewest that carry a 95 % interval of a median)."
    seconds: float = 600.0
    "A live probe ends after so many seconds in all, with what it has."
    max_context: Whole = None
    "Longest call, prompt + answer, in tokens (default: what the engine or server can take)."
    lengths: str | None = None
    "Prompt lengths in tokens, as 256,1024,4096 (prefill, decode, cache)."
    streams: str | None = None
    "How many at once, as 1,8,64 (decode, stress)."
    prompt_tokens: Whole = None
    "stress: prompt tokens of a call, about (default 1024)."
    output_tokens: Whole = None
    "stress: output tokens of a call, about (default 256). decode: of the part that is measured, about (default 64)."
    max_pressure: Whole = None
    "cache: tokens of other traffic a prefix must survive at most (default 16,000,000 simulated, 2,000,000 live)."
    max_gap: float | None = None
    "cache: seconds a prefix must survive at most (default 4096 simulated, 64 live)."
    seed: int = 0
    "Root of all randomness."

    def given(self) -> set[str]:
        """Options that differ from their defaults."""
        return {"--" + f.name.replace("_", "-") for f in fields(self) if getattr(self, f.name) != f.default}


OWN: dict[str, set[str]] = {
    "prefill": {"--lengths"},
    "decode": {"--lengths", "--streams", "--output-tokens"},
    "cache": {"--lengths", "--max-pressure", "--max-gap"},
    "stress": {"--streams", "--prompt-tokens", "--output-tokens"},
}
"""Options of a probe that not all of them have."""


def probe(
    what: What,
    workload: list[str] | None,
    out: str | None,
    json: bool,
    asked: ProbeOptions,
    reading: TraceOptions,
    engine: EngineOptions,
    server: ServerOptions,
    text: TextOptions,
    watch: WatchOptions,
) -> None:
    """Measure, print, and keep runs, result and page in a folder."""
    from workloom.answers.probe import Lab
    from workloom.cli.prepare import options_of, target_of
    from workloom.cli.server import ask
    from workloom.execute import Live

    _check(what, workload, asked, reading)
    folder = _folder(what, out)
    target = target_of(engine, server, text, watch, None)
    live = isinstance(target, Live)
    if isinstance(target, Live):
        if target.http.models:
            raise UsageError("the calls of a probe have no names", where="--model-for", hint="name one with --model")
        target = ask(target)
    options = msgspec.structs.replace(
        options_of(RunOptions(), text, None), after_error="advance", timeout_s=600.0 if live else None
    )
    lab = Lab(
        target,
        folder,
        options,
        tuple(sys.argv),
        seed=asked.seed,
        seconds=asked.seconds if live else None,
        max_context=asked.max_context,
        salt=text.text_salt,
        say=_say,
    )
    if live:
        _say(f"at most {asked.seconds:g} s (--seconds), and until what is in flight has ended")
    try:
        found = _PROBES[what](lab, workload or [], asked, reading)
    except KeyboardInterrupt:
        if lab.folder.exists():
            _say(f"interrupted; the runs made so far are kept in {folder}")
        raise
    _tell(what, found, folder, json, _where(lab))


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _check(what: What, workload: list[str] | None, asked: ProbeOptions, reading: TraceOptions) -> None:
    """Options that would change nothing, and numbers that are none."""
    stray = sorted(asked.given() & (set().union(*OWN.values()) - OWN[what]))
    if workload:
        stray += sorted(asked.given() & {"--prompt-tokens", "--output-tokens"})
    if what != "stress" and (workload or reading != TraceOptions()):
        stray += ["WORKLOAD"] if workload else ["--format, --skip-bad, --generate"]
    if stray:
        kinds = [kind for kind, own in OWN.items() if stray[0] in own]
        hint = f"it belongs to {', '.join(kinds)}" if kinds and what not in kinds else "leave it out"
        raise UsageError(f"an option that probe {what} has no use for", found=", ".join(stray), hint=hint)
    for name, value in (("--repeats", asked.repeats), ("--prompt-tokens", asked.prompt_tokens)):
        if value is not None and value < 1:
            raise UsageError("a count is 1 or more", where=name, found=value)
    for name, number, least in (
        ("--seconds", asked.seconds, 1.0),
        ("--max-gap", asked.max_gap, 0.001),
        ("--max-context", asked.max_context, 32),
        ("--max-pressure", asked.max_pressure, 1),
        ("--output-tokens", asked.output_tokens, 16 if what == "decode" else 2),
    ):
        if number is not None and not least <= number < 1e12:
            raise UsageError("a number cannot be used", where=name, expected=f"{least:g} or more", found=number)


def _folder(what: str, out: str | None) -> Path:
    """A new folder for the runs."""
    if out is not None:
        path = Path(out)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError("the folder is in use", where=out, hint="choose another name with -o")
        return path
    return next_free(f"probe-{what}")


def _numbers(option: str, text: str | None) -> list[int] | None:
    """1,2,4: positive whole numbers."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,9}", word) and int(word) > 0 for word in words):
        raise UsageError("a list of numbers", where=option, expected="positive ones, as 256,1024,4096", found=text)
    return sorted({int(word) for word in words})


def _repeats(asked: ProbeOptions) -> int:
    return asked.repeats or (QUICK if asked.quick else REPEATS)


def _prefill(lab: Lab, workload: list[str], asked: ProbeOptions, reading: TraceOptions) -> Prefill:
    from workloom.answers.probe import prefill

    return prefill(lab, _numbers("--lengths", asked.lengths), _repeats(asked))


def _decode(lab: Lab, workload: list[str], asked: ProbeOptions, reading: TraceOptions) -> Decode:
    from workloom.answers.probe import decode
    from workloom.answers.probe.decode import STEADY_TOKENS

    batches, prompts = _numbers("--streams", asked.streams), _numbers("--lengths", asked.lengths)
    return decode(lab, batches, prompts, _repeats(asked), asked.output_tokens or STEADY_TOKENS)


def _cache(lab: Lab, workload: list[str], asked: ProbeOptions, reading: TraceOptions) -> Cache:
    from workloom.answers.probe import cache

    lengths = _numbers("--lengths", asked.lengths)
    return cache(lab, lengths, _repeats(asked), asked.max_pressure, asked.max_gap)


def _stress(lab: Lab, workload: list[str], asked: ProbeOptions, reading: TraceOptions) -> Stress:
    from workloom.answers.probe import stress
    from workloom.answers.probe.stress import OUTPUT_TOKENS, PROMPT_TOKENS, offered

    if workload:
        offer, name = _offer(lab, workload, reading), ", ".join(Path(path).name for path in workload)
    else:
        offer, name = offered(lab, asked.prompt_tokens or PROMPT_TOKENS, asked.output_tokens or OUTPUT_TOKENS)
    return stress(lab, offer, name, _numbers("--streams", asked.streams), fine=not asked.quick)


def _offer(lab: Lab, workload: list[str], reading: TraceOptions) -> Offer:
    """A workload or trace as a load: its sessions again and again."""
    from workloom.cli.options import make_recipe, planned

    opened = reading.open(workload, lab.seed)

    def offer(concurrency: int, limits: Limits, warmup: Warmup) -> Plan:
        load = LoadOptions(concurrency=concurrency, seed=str(lab.seed), max_context=lab.longest)
        recipe = make_recipe(workload, reading, load, None)
        return planned(msgspec.structs.replace(recipe, limits=limits, warmup=warmup), load, opened)

    return offer


_PROBES: dict[str, Callable[[Lab, list[str], ProbeOptions, TraceOptions], Prefill | Decode | Cache | Stress]] = {
    "prefill": _prefill,
    "decode": _decode,
    "cache": _cache,
    "stress": _stress,
}


def _where(lab: Lab) -> str:
    from workloom.execute import Live

    if isinstance(lab.target, Live):
        return f"{lab.target.http.model} at {', '.join(lab.target.http.urls)}"
    return f"simulated {lab.target.profile.name}"


def _tell(what: str, found: Prefill | Decode | Cache | Stress, folder: Path, json: bool, where: str) -> None:
    """To stdout, and into the folder: probe.json and report.html."""
    from workloom.cli.show import console
    from workloom.report.page import page
    from workloom.report.probe import sections
    from workloom.report.terminal import print_tables

    encoded = msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n"
    shown = sections(found)
    write_new(folder / "probe.json", encoded)
    write_new(folder / "report.html", page(f"probe {what}", where, shown))
    if json:
        print(encoded, end="")
    else:
        print_tables(console(), shown)
    print(f"runs, probe.json and report.html are in {folder}", file=sys.stderr)
