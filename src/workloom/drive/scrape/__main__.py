"""python -m workloom.drive.scrape URL... : figures of servers as JSON lines, until stdin ends.

`now` on stdin asks for a scrape at once. Headers stand as JSON in WORKLOOM_SCRAPE_HEADERS.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from urllib.parse import urlsplit

import msgspec

from workloom.clock import host, raw_ns
from workloom.drive.scrape.fetch import tls
from workloom.drive.scrape.follow import Follower, Out, PowerFollower
from workloom.drive.scrape.lines import HEADERS_VARIABLE, LAST_S, Line
from workloom.drive.scrape.power import PowerMeter


def main() -> None:
    parent = os.getppid()
    parser = argparse.ArgumentParser(prog="python -m workloom.drive.scrape", description=__doc__)
    parser.add_argument("urls", nargs="*")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between scrapes")
    parser.add_argument("--gpu", action="store_true", help="power of this machine's GPUs too")
    parser.add_argument("--ca", help="file of certificates to trust")
    parser.add_argument("--insecure", action="store_true", help="trust any certificate")
    parser.add_argument("--keyed", action="append", help="a server that the headers go to (default: all)")
    asked = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's business; the end of stdin is ours
    out = Out(sys.stdout.fileno(), parent)
    headers = msgspec.json.decode(os.environ.pop(HEADERS_VARIABLE, "{}"), type=dict[str, str])
    followers: list[Follower | PowerFollower] = []
    try:
        context = tls(asked.ca, asked.insecure)
        keyed = {_server(url) for url in asked.keyed or asked.urls}
        followers += [
            Follower(url, out, every_s=asked.every, headers=headers if _server(url) in keyed else {}, context=context)
            for url in asked.urls
        ]
    except (OSError, ValueError) as fault:
        out(Line("", raw_ns(), fault=str(fault)))
        return
    if asked.gpu:
        followers.append(PowerFollower(PowerMeter(), out, every_s=asked.every))
    for follower in followers:
        follower.start()
    for _ in sys.stdin:
        for follower in followers:
            follower.poke()
    for follower in followers:
        follower.poke(stop=True)
    give_up = host.monotonic() + 2 * LAST_S
    for follower in followers:
        follower.join(max(0.0, give_up - host.monotonic()))
    os._exit(0)  # a server that does not answer holds its thread


def _server(url: str) -> str:
    return urlsplit(url).netloc


if __name__ == "__main__":
    main()
