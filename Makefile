# Everything a fresh machine needs: python3 with venv, and a Python package index that pip is set up for.
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
RUN := build/canonical

.PHONY: run test test-engines format test-long bench bench-engines bench-coverage clean

$(READY): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

# The canonical workload on the simulated engine.
run: $(READY)
	rm -rf $(RUN)
	$(VENV)/bin/workloom run src/workloom/data/canonical.jsonl --concurrency 8 --engine llama-3.1-70b-h200x4 -o $(RUN)

# Every check, with llama.cpp as the real server. Engines are installed on demand under build/engines.
test: $(READY)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) scripts/check_imports.py
	timeout 1200 $(PY) -m pytest -n 2 -m 'not long and not engines'
	timeout 300 $(PY) -m pytest -rs tests/engines/test_install.py tests/engines/test_checks.py tests/engines/test_llama_cpp.py tests/engines/test_smollm2.py

# vLLM on the CPU and Dynamo's mocker: 3 GB of packages, some minutes.
test-engines: $(READY)
	timeout 1200 $(PY) -m pytest -rs tests/engines/test_vllm.py tests/engines/test_dynamo.py

test-long: $(READY)
	$(PY) -m pytest

format: $(READY)
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: $(READY)
	$(PY) benchmarks/simulator.py
	$(PY) benchmarks/client_cpu.py
	$(PY) benchmarks/ttft_error.py
	$(PY) benchmarks/long_conversations.py
	$(PY) benchmarks/memory.py
	$(PY) benchmarks/startup.py
	$(PY) benchmarks/agreement.py
	$(PY) benchmarks/import_speed.py
	$(PY) benchmarks/characterize_speed.py
	$(PY) benchmarks/synth_speed.py
	$(PY) benchmarks/all_metrics.py
	$(PY) benchmarks/until.py

# How often intervals hold the true value: 1,000 seeded runs of each load, some hours of CPU. Goes on where it was.
bench-coverage: $(READY)
	for step in make long table; do $(PY) benchmarks/coverage.py $$step --kept build/coverage || exit 1; done

bench-engines: $(READY)
	$(PY) benchmarks/dynamo_twin.py

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
