"""`workloom check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from workloom.cli.server import ServerOptions
from workloom.errors import UsageError, WorkloomError

if TYPE_CHECKING:
    from workloom.drive.probe import Report

_STYLES = {"yes": "green", "no": "red", "ignored": "yellow", "unknown": "dim"}


def check(
    url: str,
    model: str | None,
    timeout: float,
    api_key_env: str,
    header: list[str],
    body: list[str],
    insecure: bool,
    ca_file: str | None,
    proxy: str,
    json: bool,
) -> None:
    """Print what the server at `url` supports; raises when no run can be made against it."""
    from workloom import seeds
    from workloom.clock import RealClock, run_real
    from workloom.drive import probe
    from workloom.drive.targets import HttpOptions

    if not timeout > 0:
        raise UsageError("a time-out is a positive number of seconds", where="--timeout", found=timeout)
    given = ServerOptions(api_key_env=api_key_env, header=header, body=body)
    options = HttpOptions(
        urls=(url,),
        model=model or "",
        api_key=given.api_key,
        headers=given.headers(),
        body=given.fields(),
        verify=not insecure,
        ca_file=ca_file,
        proxy=proxy,
        salt=seeds.fresh_seed(),
    )

    async def main(clock: RealClock) -> Report:
        return await probe.check(options, clock, timeout)

    report = run_real(main)
    if json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=1).decode())
    else:
        _show(report)
    if report.reason is not None:
        raise WorkloomError(f"no run can be made against {url}: {report.reason}", hint=report.hint)


def _show(report: Report) -> None:
    """The findings and what they mean, to stdout."""
    from workloom.cli.show import console
    from workloom.drive.probe.findings import one_line

    out = console()
    head = f"{report.url}: {report.family or 'a server that does not say what it is'}, model {report.model or '?'}"
    out.print(Text(one_line(head), style="bold"))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for column in ("", "what", "finding", "evidence"):
        table.add_column(column, overflow="fold")
    area = ""
    for finding in report.findings:
        shown = "" if finding.area == area else finding.area
        area = finding.area
        verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
        table.add_row(Text(shown, style="bold"), Text(finding.name), verdict, Text(finding.evidence))
    out.print(table)
    out.print()
    out.print(Text(f"What it means ({report.took_s:.1f} s)", style="bold"))
    for sentence in report.advice:
        out.print(Text(one_line(sentence)), soft_wrap=True)
    if report.options:
        out.print(Text(one_line(f"workloom run TRACE {' '.join(report.options)}")), soft_wrap=True)
