# Recipes are one line; logic lives in tools/. `make` alone says what there is.
VENV ?= .venv
BIN := $(VENV)/bin

# The targets share one virtual environment, and the tests want the machine for themselves.
.NOTPARALLEL:
.PHONY: help run test check format lint types layers native crate tests examples fuzz bench clean
NATIVE := $(VENV)/native-built

help:           ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

run: $(VENV)/installed $(NATIVE) ## Install Doorward and run it in the foreground with doorward.toml
	@$(BIN)/doorward serve --policy doorward.toml

test: $(VENV)/installed-dev $(NATIVE) ## Install what tests need and run them
	@$(BIN)/python -m pytest -n 2 --dist loadgroup || { \
	    echo 'doorward: what failed beside others is run once more, by itself' >&2; \
	    $(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

check: format lint types layers crate test examples fuzz ## Everything that must hold before a change lands

format: $(VENV)/installed-dev   ## Formatting is as it should be
	@$(BIN)/ruff format --check .

lint: $(VENV)/installed-dev     ## ruff
	@$(BIN)/ruff check .

types: $(VENV)/installed-dev    ## mypy, strict, tests too
	@$(BIN)/mypy

layers: $(VENV)/installed-dev   ## Rooms import only rooms below; every module has its test; files stay small
	@$(BIN)/python -m tools.house

native: $(VENV)/installed       ## Build the native relay and install it (needs cargo)
	@sh tools/native.sh require $(VENV)

crate:                          ## The native relay's own formatting, lints and tests, where cargo is
	@sh tools/native.sh check $(VENV)

examples: $(VENV)/installed-dev ## Run the examples on live traffic
	@$(BIN)/python -m examples.run_all

fuzz: $(VENV)/installed-dev     ## A short run of every fuzzer
	@$(BIN)/python -m tools.fuzz_all --seconds 5

bench: $(VENV)/installed-dev $(NATIVE) ## Doorward next to its peers, in one run (needs cc, and the peers)
	@$(BIN)/python -m bench

clean:          ## Remove what was built; the log of a firewall that ran here (var/) stays
	rm -rf $(VENV) native/target .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/installed: pyproject.toml tools/venv.sh
	@sh tools/venv.sh $(VENV) .

$(VENV)/installed-dev: pyproject.toml tools/venv.sh
	@sh tools/venv.sh $(VENV) '.[dev]'

$(NATIVE): tools/native.sh native/Cargo.toml native/Cargo.lock native/pyproject.toml $(wildcard native/src/* native/python/doorward_native/*)
	@sh tools/native.sh build $(VENV)
