"""`workloom calibrate`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from cyclopts import Group, Parameter

from workloom.cli.options import Whole
from workloom.cli.write import new_file, write_new
from workloom.errors import UsageError

if TYPE_CHECKING:
    from workloom.answers.calibrate import Calibration, Checked
    from workloom.answers.calibrate.estimate import Estimate
    from workloom.report.page import Section

SERVER = Group("Server", sort_key=2)


@Parameter(name="*", group=SERVER)
@dataclass(frozen=True)
class KnownOptions:
    """What is known of the server, beside what its pages and the runs say."""

    metrics: str | None = None
    "Its metrics page, saved: block size, count and mode are taken from it."
    model_config: str | None = None
    "The model's config.json: experts, layers, heads, layers that keep states."
    model: str | None = None
    "Name of the model."
    gpu: str | None = None
    "h100_sxm, h200_sxm: for priors of what runs cannot tell."
    gpus: Whole = None
    "How many."
    experts: Whole = None
    "Experts of a layer (0: a dense model)."
    experts_per_token: Whole = None
    "Of these, how many each token takes."
    state_groups: Whole = None
    "Groups of layers that keep states instead of KV."
    block_tokens: Whole = None
    "Tokens of a KV block."
    kv_tokens: Whole = None
    "KV capacity in tokens."
    kv_token_bytes: Whole = None
    "Bytes of KV a token has."
    pair_flops: Whole = None
    "Operations of a query-key pair over all attention layers: 4 * heads * head size * layers."
    max_model_len: Whole = None
    "Longest call, prompt + answer."
    max_num_seqs: Whole = None
    "Most calls in a step."
    max_batched_tokens: Whole = None
    "Most tokens of a step."
    prefix_cache: bool | None = None
    "Whether the prefix cache is on."
    async_scheduling: bool | None = None
    "Whether steps are decided ahead (default: as the stalls say)."
    template: str | None = None
    """CALL:TURN:TAIL:ANSWERS, what the chat template makes of prompts where runs do not tell: tokens in every prompt, \
tokens more for each earlier call, those that open the answer; and repeated or rewritten."""

    def known(self) -> dict[str, Any]:
        """Fields of a Server that were given."""
        apart = ("metrics", "model_config", "kv_tokens", "async_scheduling", "template")
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        known = {name: value for name, value in given.items() if value is not None}
        for name, value in known.items():
            if isinstance(value, int) and value < 0:
                option = "--" + name.replace("_", "-")
                raise UsageError("a count is not below 0", where=option, expected="0 or more", found=value)
        if self.template is not None:
            known["template"] = _template(self.template)
        return known


def calibrate(
    runs: tuple[str, ...],
    plan: bool,
    out: str | None,
    most: int,
    context: int,
    seed: int,
    json: bool,
    known: KnownOptions,
    check: str | None = None,
    same_siblings: bool = False,
) -> None:
    """Fit, print, and write the profile; or check a profile; or write the workload that shows everything."""
    if plan:
        _write_plan(runs, out, most, context)
        return
    from workloom.answers.calibrate import calibrate as fit
    from workloom.answers.calibrate import gather, read, written

    if not runs:
        raise UsageError(
            "nothing to calibrate from",
            expected="run directories, or files of rows",
            found="none",
            hint="`workloom calibrate --plan -o plan.jsonl` writes a workload to run first",
        )
    if check is not None:
        _check(runs, check, out, seed, json, known, same_siblings)
        return
    goal = None if out is None else new_file(out, "the profile")
    given = known.known()
    page = None if known.metrics is None else Path(known.metrics)
    config = None if known.model_config is None else Path(known.model_config)
    server = gather(page, config, given)
    if known.kv_tokens is not None:
        server = msgspec.structs.replace(server, kv_blocks=known.kv_tokens // server.block_tokens)
    print("reading stalls and windows, then replaying: half a minute or so", file=sys.stderr)
    name = "calibrated" if goal is None else goal.stem
    observed = [read(Path(run), same_siblings=same_siblings) for run in runs]
    found = fit(observed, server, name=name, ahead=known.async_scheduling, seed=seed)
    if json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    else:
        from workloom.cli.show import console
        from workloom.report.terminal import print_tables

        print_tables(console(), sections(found))
    if goal is not None:
        write_new(goal, written(found.profile, "Made by `workloom calibrate`; times are picoseconds."))


def _check(
    runs: tuple[str, ...],
    check: str,
    out: str | None,
    seed: int,
    json: bool,
    known: KnownOptions,
    same_siblings: bool,
) -> None:
    """A profile against runs, without fitting anything."""
    from workloom.answers.calibrate import Checked, Server, hit_rate, read
    from workloom.answers.calibrate import check as replayed
    from workloom.engine import profile as profiles

    if out is not None:
        raise UsageError("a check makes no profile", where="-o", expected="--check without -o", found=out)
    if known.metrics is not None and len(runs) > 1:
        raise UsageError(
            "a metrics page is of one run", where="--metrics", expected="one run", found=f"{len(runs)} of them"
        )
    profile = profiles.load(check)
    server = Server(prefix_cache=True if known.prefix_cache is None else known.prefix_cache)
    told = None if known.metrics is None else hit_rate(Path(known.metrics))
    print(f"replaying on {profile.name}", file=sys.stderr)
    observed = [read(Path(run), same_siblings=same_siblings) for run in runs]
    found = [Checked(run.name, False, replayed(run, profile, server, seed, told)) for run in observed]
    if json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
        return
    from workloom.cli.show import console
    from workloom.report.terminal import print_tables

    print_tables(console(), [_checked(each) for each in found])


def sections(found: Calibration) -> list[Section]:
    """Coefficients, then every run against its replay."""
    from workloom.report.page import Section
    from workloom.report.table import Column, Table

    rows = [_row(name, estimate) for name, estimate in found.estimates.items() if estimate.points or estimate.why]
    names = ("coefficient", "value", "± one standard error", "seen in", "not identified, or a remark")
    columns = tuple(Column(name, align="left") for name in names)
    out = [Section("coefficients", "Coefficients", tables=(Table("Coefficients", columns, tuple(rows)),))]
    return [*out, *(_checked(each) for each in found.checked)]


def _row(name: str, estimate: Estimate) -> tuple[str, ...]:
    scale, unit = (1.0, "") if name.startswith("template") else (1e9, " ms")
    if 0 < estimate.value < 1e8 and unit:
        scale, unit = 1e6, " µs"
    value = f"{estimate.value / scale:.4g}{unit}"
    if name == "template.answers":
        value = "repeated" if estimate.value else "rewritten"
    error = "" if estimate.error is None else f"{estimate.error / scale:.2g}{unit}"
    return name, value, error, f"{estimate.points:,}" if estimate.identified else "-", estimate.why


def _checked(each: Checked) -> Section:
    from workloom.report.page import Section
    from workloom.report.table import Column, Table

    rows = []
    for line in each.residuals:
        measured, predicted = (_figure(value, line.unit) for value in (line.measured, line.predicted))
        ratio = "" if line.ratio is None else f"{line.ratio:.3f}"
        noise = "" if line.noise is None else f"{line.noise:.3f}"
        spread = "" if line.spread is None else f"{line.spread:.3f}"
        rows.append((line.quantity, measured, predicted, ratio, noise, spread))
    names = ("quantity", "measured", "predicted", "ratio", "noise", "of replays")
    how = "predicted from the other runs" if each.left_out else "replayed"
    columns = tuple(Column(name, align="left" if name == "quantity" else "right") for name in names)
    title = f"{each.run}, {how}"
    return Section("residuals", title, tables=(Table(title, columns, tuple(rows)),))


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value * 1e3:.4g} ms" if unit == "s" else f"{value:.4g}"


def _write_plan(runs: tuple[str, ...], out: str | None, most: int, context: int) -> None:
    from workloom.answers.calibrate.design import HEADER, Design, sessions
    from workloom.traces import native

    if runs:
        raise UsageError("a plan is made of nothing", where="--plan", expected="no runs", found=" ".join(runs))
    if out is None:
        raise UsageError("a plan is written to a file", where="--plan", hint="name it with -o")
    goal = new_file(out, "the plan")
    count = native.write(goal, HEADER, sessions(Design(most=most, context=context)))
    print(f"{count} sessions, about five minutes: workloom run {out} --replay", file=sys.stderr)


def _template(text: str) -> Any:
    from workloom.engine.profile import Template

    try:
        call, turn, tail, answers = text.split(":")
        made = {"call_tokens": int(call), "turn_tokens": float(turn), "tail_tokens": int(tail), "answers": answers}
        return msgspec.convert(made, Template)
    except (ValueError, msgspec.ValidationError) as fault:
        raise UsageError(
            "a template is not as it should be",
            where="--template",
            expected="CALL:TURN:TAIL:repeated or CALL:TURN:TAIL:rewritten, as 17:5.67:6:rewritten",
            found=text,
        ) from fault
