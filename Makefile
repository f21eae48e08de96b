# Each target sets up what it needs: a virtual environment in .venv, with the tested versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.done

.PHONY: setup demo test test-slow lint bench clean

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,demo,dev]'
	touch $@

demo: $(SETUP)
	$(BIN)/python recipes/demo_pool.py demo/pool
	$(BIN)/vl3syn run recipes/demo.yaml --run demo/run
	@echo
	@echo 'Look closer:  $(BIN)/vl3syn sweep demo/run aspect_ratio.max=1.3,1.5,2 aspect_ratio.min_side=100,200,400'
	@echo '              $(BIN)/vl3syn explain demo/run photographs/rocket.jpg'

test: $(SETUP)
	$(BIN)/python -m pytest

test-slow: $(SETUP)
	$(BIN)/python -m pytest -m slow

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(SETUP)
	$(BIN)/python benchmarks/index_headers.py
	$(BIN)/python benchmarks/manifest_10m.py
	$(BIN)/python benchmarks/command_line.py

clean:
	rm -rf .venv demo build *.egg-info
