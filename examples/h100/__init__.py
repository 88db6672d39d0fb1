"""What the three case studies share: the workloads, the figures of a run, tables of published against simulated."""

from importlib.util import find_spec

if find_spec("workloom") is None:
    raise SystemExit("error: workloom is not installed for this Python; hint: `make run`, then use .venv/bin/python")
