# One entry point. Every target sets up what it needs; PYTHON chooses the interpreter (3.11 or later).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGUMENTS ?=

.DEFAULT_GOAL := build
.PHONY: build check test demo bench soak fuzz clean

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "$(PYTHON) is not there or older than 3.11: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip 'setuptools>=77' 'cython>=3.1,<4'
	HOURBOOK_WITHOUT_CORE=1 $(BIN)/python -m pip install -q --no-build-isolation --editable '.[dev]'
	touch $(STAMP)

build: $(STAMP)
	$(BIN)/python setup.py -q build_ext --inplace
	@find exchange -name '*.so' -exec touch {} +  # newer than every source: tests refuse older ones

check: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/cython-lint exchange
	$(BIN)/mypy

# A file of tests is one worker's, and the longest come first, as tests/conftest.py has ordered them;
# WORKERS=0 has all of them one after another in this process.
WORKERS ?= 2
test: build
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGUMENTS)

# The demo market: about twenty seconds, then its proof. ARGUMENTS='--seconds 60 --serve'
demo: build
	$(BIN)/hourbook demo $(ARGUMENTS)

bench: build
	$(BIN)/hourbook bench core $(ARGUMENTS)
	$(BIN)/hourbook bench path $(ARGUMENTS)

# A quarter of SECONDS the engine against the oracle on random commands, a quarter the fast build
# against the checked one (tests/endurance.py, which does a hundred million if nobody says how many),
# a quarter storms over the whole market, a quarter a real server killed under load, a million
# mutated frames, and the business days of a year with restarts: make soak SECONDS=3600.
# HOURBOOK_CHECKED=1 make build first for a core with its own checks on.
# `hourbook bench soak` watches memory for an hour.
SECONDS ?= 1800
soak: build
	HOURBOOK_SOAK_SECONDS=$$(($(SECONDS) / 4)) $(BIN)/python -m pytest tests/test_engine.py -k soak -s $(ARGUMENTS)
	PYTHONPATH=. $(BIN)/python tests/endurance.py --seconds $$(($(SECONDS) / 4)) --first $$(date +%s)
	HOURBOOK_SIM_SECONDS=$$(($(SECONDS) / 4)) $(BIN)/python -m pytest tests/test_sim.py -k soak -s $(ARGUMENTS)
	HOURBOOK_MUTATIONS=1000000 $(BIN)/python -m pytest tests/test_mutation.py -s $(ARGUMENTS)
	HOURBOOK_YEAR_DAYS=$$(($(SECONDS) < 1040 ? $(SECONDS) / 4 : 260)) $(BIN)/python -m pytest tests/test_year.py -k soak -s $(ARGUMENTS)
	HOURBOOK_CRASH_SECONDS=$$(($(SECONDS) / 4)) $(BIN)/python -m pytest tests/test_crash.py -s $(ARGUMENTS)

# Coverage-guided fuzzing of the decoder; what reaches new code is kept in build/corpus.
fuzz: build
	mkdir -p build/corpus
	PYTHONPATH=.:tests $(BIN)/python tests/fuzzing.py -max_total_time=$(SECONDS) build/corpus

clean:
	rm -rf build dist *.egg-info
	find exchange \( -name '*.so' -o -name '*.c' \) -delete
