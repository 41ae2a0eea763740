PYTHON ?= python3
BIN := .venv/bin
RUN_DIR ?= runs/demo
# Compile selective search now, not in the middle of the first run.
WARM := $(BIN)/python -c 'from detpipe import SelectiveSearch; SelectiveSearch().check()'

# The fuzz run: its time, and the folder of the files that it finds, which the tests read again.
FUZZ_MINUTES ?= 60
FUZZ_CORPUS ?= tests/fuzz/corpus

# Where this is set, each process of a test compiles the package again, and each run of the suite rewrites its asserts.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test-quick test test-slow fuzz check docs format clean

run: .venv/.run  ## install, make the demo data, build a detector from it, print the table and the page's path
	$(BIN)/detpipe run dataset=demo run_dir=$(RUN_DIR)

test-quick: .venv/.dev  ## unit tests, in under 90 s on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not long"

test: .venv/.dev  ## the whole suite but the tests marked slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"  # a process a core, a file in one

test-slow: .venv/.dev  ## the tests marked slow
	$(BIN)/python -m pytest -m slow

fuzz: .venv/.dev  ## damaged files for every reader, for an hour; what one fails on is kept in tests/fuzz/corpus
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --minutes $(FUZZ_MINUTES) --corpus $(FUZZ_CORPUS)

check: .venv/.dev  ## the one list of format, lint and type checks, for people, hooks and CI
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/.docs  ## the site of docs/ in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

.venv/.run: .venv/pyvenv.cfg pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo,weights]'
	$(WARM)
	touch $@

.venv/.dev: .venv/pyvenv.cfg pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo,weights,timm,export,openvino,pandas,parquet,ray,remote,tensorboard,mlflow,dev]'
	$(WARM)
	touch $@ .venv/.run

.venv/.docs: .venv/pyvenv.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info runs
