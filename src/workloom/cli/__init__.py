"""The command line: parse, call, print. Data goes to stdout, everything else to stderr.

Exit codes: 0 done; 1 an error, said with a hint; 2 options that make no sense; 3 an SLO or a gate fails; 4 not enough
data to say; 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys

from cyclopts import CycloptsError

from workloom.cli import commands, question_commands, server_commands
from workloom.cli.app import app
from workloom.errors import UsageError, WorkloomError

__all__ = ["app", "commands", "main", "question_commands", "say", "server_commands"]


def say(fault: WorkloomError) -> None:
    """An error and its hint, to stderr."""
    print(f"error: {fault}", file=sys.stderr)


def main() -> None:
    """Entry point of the `workloom` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no ∞ gets a ?
            stream.reconfigure(errors="replace")
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as fault:
        say(UsageError(str(fault).strip(), hint="`workloom --help` and `workloom COMMAND --help` list the options"))
        sys.exit(2)
    except UsageError as fault:
        say(fault)
        sys.exit(2)
    except WorkloomError as fault:
        say(fault)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as fault:
        if fault.filename is not None or sys.stdout is None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(fault, BrokenPipeError):
            say(WorkloomError(f"the output could not be written: {fault.strerror}"))
        sys.exit(1)
