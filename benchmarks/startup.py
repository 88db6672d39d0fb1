"""From the command to its first request: `workloom run TRACE --url URL`, as a user types it. At most one second.

python benchmarks/startup.py [--rounds 5] [--sessions 100]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import client

from workloom.clock import host
from workloom.session import Call, Header, Part, Session
from workloom.traces import native

GOAL_S = 1.0


def once(server: client.Server, trace: Path, folder: Path) -> tuple[float, float]:
    """Seconds to the first request that the server read, and to the end of the command."""
    server.sent()
    began_s = host.wall()
    command = [sys.executable, "-m", "workloom.cli", "run", str(trace), "--url", f"http://127.0.0.1:{server.port}/v1"]
    subprocess.run([*command, "-o", str(folder)], check=True, capture_output=True)
    return server.first_read_s() - began_s, host.wall() - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=100)
    client.with_mock(parser)
    args = parser.parse_args()
    with TemporaryDirectory() as scratch, client.server(args.mock) as server:
        if not server.in_c:
            sys.exit("startup.py needs the mock server in C: --mock PATH/mock.c, and gcc")
        trace = Path(scratch, "trace.jsonl")
        call = Call("call", 8, fresh=(Part("user", 64),))
        native.write(trace, Header(source="benchmark"), [Session(str(i), (call,)) for i in range(args.sessions)])
        found = [once(server, trace, Path(scratch, f"run{turn}")) for turn in range(args.rounds + 1)][1:]
    first_s, whole_s = (statistics.median(values) for values in zip(*found, strict=True))
    verdict = "reached" if first_s <= GOAL_S else "NOT REACHED"
    print(f"first request after {first_s:.2f} s (goal {GOAL_S:g} s): {verdict}; the command ends after {whole_s:.2f} s")


if __name__ == "__main__":
    main()
