"""What does a server support? Asked of the server itself, before anyone wastes an hour.

wire       one exchange, whatever comes of it          lab       what the probes share
answer     an answer of any API, read tolerantly        findings  what a check finds
server, streams, lengths, prompts, tools, faults        the probes
advice     what the findings mean for a run             check     all probes, one after the other
"""

from workloom.drive.probe.check import check
from workloom.drive.probe.findings import Finding, Report

__all__ = ["Finding", "Report", "check"]
