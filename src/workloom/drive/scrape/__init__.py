"""The server's own figures while a run goes on: its /metrics, asked for once a second by a process of its own.

    run's process                          scraper's process (python -m workloom.drive.scrape)
    Scraper.start   -- spawns -->          one thread a URL: ask, parse, keep what is known
    reader thread   <-- lines on stdout -- {at_ns, rows: [[name, replica, value], ...]} or {fault}
    Scraper.mark    -- "now" on stdin -->  a scrape at once (at the edges of the window)
    Scraper.stop    -- end of stdin -->    a last scrape, then it ends; so it does when the run dies

Use :class:`scraper.Scraper`, and :func:`reset.reset_prefix_cache` before a run.

Parsing a page of 60 KB takes some milliseconds, which the event loop that times the calls cannot spare. What is known
of whose page stands in :mod:`families`; an unknown page is a count in the report and never ends a run.
"""
