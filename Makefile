# One environment in .venv, made once; every target makes it first and a second run reinstalls nothing.
#
#   make lab        open JupyterLab on the first notebook
#   make notebooks  run all notebooks in order, headless; copies and HTML in out/notebooks/
#   make site       the course as static pages in out/site (stored outputs; the swap lab runs in the browser)
#   make handouts   student copies of the notebooks, zipped;  make slides: a deck of each notebook
#   make tables     tables of the recorded results (data/results/tables.md, README, model cards)
#   make test       pytest, doctests and the notebooks' stored outputs (nbval)
#   make lint       ruff and mypy
#   make pages      write the recall version and the tables of the pages beside the notebooks
#   make venv       the environment alone
#
# Options: CPU=1 (torch without its CUDA libraries), PYTHON=python3.12, EXTRAS=browser,offline-check,
#          PYTEST_ARGS="-k planes", PROCESSES=4 (tests side by side), HEAD3D_WITH_EXT=0|1|auto, HEAD3D_WITH_CUDA=0|1|auto

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
CPU ?=
EXTRAS ?=
PYTEST_ARGS ?=
PROCESSES ?= 2

# What is installed is named by a checksum of what asked for it, so that neither clocks nor checkouts matter.
sum = $(shell { $(1); } 2>/dev/null | cksum | tr ' ' '-')
REQUIREMENTS := $(VENV)/.requirements-$(call sum,cat requirements.txt; echo "$(CPU)")
PACKAGE := $(VENV)/.package-$(call sum,cat pyproject.toml setup.py requirements.txt; find csrc -type f | LC_ALL=C sort | xargs cat; \
	command -v c++ g++ clang++ nvcc; echo "$(EXTRAS) $(CPU) $$CXX $$HEAD3D_WITH_EXT $$HEAD3D_WITH_CUDA")

.PHONY: help venv lab notebooks pages site handouts slides tables test lint format clean
help:
	@sed -n '3,14p' Makefile | cut -c3-

venv: $(PACKAGE)

$(BIN)/python:
	@for p in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3 python; do \
	  if "$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$("$$p" --version)."; exec "$$p" -m venv $(VENV); fi; done; \
	  echo "Python 3.11 or newer with its venv module was not found: install it (Debian/Ubuntu: apt install python3.11-venv) or name it with PYTHON=/path/to/python." >&2; exit 1

$(REQUIREMENTS): | $(BIN)/python
	@echo "Installing the pinned packages$(if $(CPU),, (on Linux about 6 GB, most of it torch's CUDA libraries; make CPU=1 leaves them out))."
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install $(if $(CPU),--extra-index-url https://download.pytorch.org/whl/cpu) -r requirements.txt
	@rm -f $(VENV)/.requirements-* && touch $@

$(PACKAGE): $(REQUIREMENTS)
	@echo "Installing head3d_core and head3d_course (and building the extension if a compiler is there)."
	@$(BIN)/python -m pip install -qq --no-build-isolation $(if $(EXTRAS),-c requirements.txt -e ".[$(EXTRAS)]",--no-deps -e .)
	@printf 'Extension: '; cat build/extension.txt
	@rm -f $(VENV)/.package-* && touch $@

lab: venv
	$(BIN)/python -m jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/00_start_here.ipynb

notebooks: venv
	$(BIN)/python tests/run_notebooks.py

pages: venv
	$(BIN)/python tests/course_pages.py

site: venv
	$(BIN)/python notebooks/site/build_site.py

handouts slides: venv
	$(BIN)/python notebooks/site/$@.py

tables: venv
	$(BIN)/python data/scripts/results_page.py

# First what needs the machine for itself, then all the rest in two processes. pytest says 5 where a half has no test.
test: venv
	@all=5; failed=; for half in "--alone tests" "-n $(PROCESSES) --dist loadfile tests head3d_core notebooks"; do \
	  $(BIN)/python -m pytest $$half --doctest-modules --nbval --nbval-current-env \
	    --nbval-sanitize-with tests/nbval_sanitize.cfg $(PYTEST_ARGS); code=$$?; \
	  if [ $$code != 0 -a $$code != 5 ]; then failed="$$failed (pytest $$half)"; fi; \
	  if [ $$all = 5 ] || [ $$code != 0 -a $$code != 5 ]; then all=$$code; fi; done; \
	  [ -z "$$failed" ] || echo "failed: $$failed"; exit $$all

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build out *.egg-info head3d_core/_C*.so .pytest_cache .mypy_cache .ruff_cache
