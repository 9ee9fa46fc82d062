# Every target sets up what it needs: a virtual environment in .venv, made once and kept until its inputs change.
# On a machine without a GPU, PyTorch's CPU index in PIP_EXTRA_INDEX_URL saves gigabytes.

PYTHON  ?= python3
WORKERS ?= 2
ARGS    ?=

VENV := .venv
PY   := $(VENV)/bin/python
# Named after what is installed and where: a changed pyproject.toml, constraint or folder installs again.
READY := $(VENV)/.ready-$(shell { echo '$(CURDIR)'; cat pyproject.toml constraints.txt; } | cksum | cut -d' ' -f1)

# Large tensors come and go, and clearing their small pages takes a third of the time of float64 runs (glibc 2.35 on).
test test-all: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1

.PHONY: help demo test test-all browser package bench mutate lint format setup clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1        \t/p' Makefile | sed 's/^\(.\{9\}\) *\t/  make \1 /'
	@echo '  ARGS="-k wan" is handed to pytest, bench or demo; PYTHON=python3.12 chooses the interpreter; WORKERS=2 the test processes'

demo: $(READY) ## a photo and a clip there and back; three VAEs on real files: load, stream, prove; one port
	@$(VENV)/bin/vaeport demo $(ARGS)

test: $(READY) ## the tests, without those at full width and those that take long
	@$(PY) -m pytest -n $(WORKERS) --dist worksteal -m "not full" $(ARGS)

test-all: test browser ## those and all others: at full published width, long ones, reports in a browser
	@$(PY) -m pytest -n $(WORKERS) --dist worksteal -m full $(ARGS)

browser: ## Chromium for the tests of reports, unless there is one (Debian's, as root; VAEPORT_CHROMIUM names another)
	@test -n "$$VAEPORT_CHROMIUM" || command -v chromium google-chrome chromium-browser >/dev/null || { \
	  echo "installing chromium" >&2; apt-get update -qq && apt-get install -y -qq chromium >/dev/null; }

package: ## wheel and sdist into dist/, each installed into an empty environment and tried there (PYTHON=python3.13)
	@rm -rf dist $(VENV)-package && $(PYTHON) -m venv $(VENV)-package
	@$(VENV)-package/bin/python -m pip install --quiet --disable-pip-version-check build && $(VENV)-package/bin/python -m build -o dist .
	@for file in dist/*; do \
	  rm -rf $(VENV)-package && $(PYTHON) -m venv $(VENV)-package || exit 1; \
	  $(VENV)-package/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch || exit 1; \
	  $(VENV)-package/bin/python -m pip install --quiet --disable-pip-version-check $$file && \
	  (cd dist && ../$(VENV)-package/bin/python ../tests/smoke.py) && \
	  $(VENV)-package/bin/python -m pip install --quiet --disable-pip-version-check "$$file[video]" && \
	  (cd dist && ../$(VENV)-package/bin/python ../tests/smoke.py --extras) || exit 1; done
	@rm -rf $(VENV)-package

bench: $(READY) ## speed and memory against Diffusers, each beside its parity verdict
	@$(PY) -m bench $(ARGS)

mutate: $(READY) ## inject faults: does the proof see them, and does prove --explain name them? (hours; ARGS="--count 14")
	@$(PY) -m bench.drift --out drift-out $(ARGS)

lint: $(READY) ## ruff, mypy, docstrings, file sizes, import boundaries
	@$(PY) -m pytest -q -s tests/test_style.py tests/test_boundaries.py

format: $(READY) ## rewrite the sources as ruff wants them
	@$(PY) -m ruff check --fix --exit-zero .
	@$(PY) -m ruff format .

setup: $(READY) ## install into .venv only

clean: ## remove the environment and all caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp comes last, so an environment that was cut short has none and is made anew. torch is installed first and alone:
# with its pinned build in place, nothing that follows can pull in another one.
$(READY):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"vaeport needs Python 3.11 or later; $(PYTHON) is {sys.version.split()[0]}. Try: make PYTHON=python3.12")'
	@echo "installing into $(VENV) (about two minutes the first time)" >&2
	@ls $(VENV)/.ready-* >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@rm -f $(VENV)/.ready-*
	@touch $@
