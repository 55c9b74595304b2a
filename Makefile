# `make train` and `make test` need Python 3.11 and make, nothing else; see `make help`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
JOBS ?= 2
export WANDB_SILENT ?= true

.PHONY: help train test test-long lint docs smoke bench drill house clean
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,cluster]'
	@touch $@

train: .venv/.ready ## set up, and train the transformer on the simulated cell (about a minute)
	$(BIN)/python -m torchcell.train +experiment=simulated_cgt overwrite=true

test: .venv/.ready ## set up, and run the tests of each commit in JOBS=2 processes
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -rs -n $(JOBS) --dist loadfile -m "not long"

.venv/.browser: .venv/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	@touch $@

test-long: .venv/.ready .venv/.browser ## the tests that take long: every pair, two processes for every model, floors on real data
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -rs -n $(JOBS) --dist loadfile -m long

lint: .venv/.ready ## ruff check and format, mypy on the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/.docs: .venv/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

docs: .venv/.docs ## build the site into build/docs: runs the tutorials that changed, follows every link, needs no network
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python scripts/build_docs.py

smoke: .venv/.ready ## does every experiment that needs no file start and end?
	for experiment in $$(grep -o '^simulated_[a-z0-9_]*' conf/experiment.yaml); do \
		$(BIN)/python -m torchcell.train +experiment=$$experiment +debug=fast paths.runs=build/smoke overwrite=true || exit 1; \
	done

bench: .venv/.ready ## measure speed and size against the targets
	$(BIN)/python scripts/bench/run.py

drill: .venv/.ready ## bad days on purpose: kills, full disks, lost processes; what is lost by each
	$(BIN)/python scripts/drill/run.py

house: .venv/.ready ## sizes and imports of the package, and files that one run of each task executes
	$(BIN)/python scripts/house.py

clean: ## remove the environment and caches; runs stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
