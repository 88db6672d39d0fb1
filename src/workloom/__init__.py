"""workloom: benchmark LLM inference systems under agentic load.

Import the part you need: :mod:`workloom.session` has the nouns, :mod:`workloom.traces` reads
traces, :mod:`workloom.plan` makes plans, :mod:`workloom.drive` runs them.
"""

__version__ = "0.1.0"
