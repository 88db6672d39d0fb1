"""Real engines on the CPU: installed on demand outside the project's environment, started here, stopped by pid.

install.py      environments under build/engines, one for each engine
tiny_model.py   the model that all of them serve
servers.py      start, wait until it serves, stop
runs.py         traces in, `workloom run`, what it recorded out
"""

import pytest

pytest.register_assert_rewrite("engines.checks", "engines.runs")
