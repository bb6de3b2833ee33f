# Two commands do everything: `make lab` opens the course, `make test` checks it.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
LESSON := notebooks/00_start_here.ipynb

# JupyterLab's question about news, which a first-time visitor would have to answer, and its look for updates.
NEWS := @jupyterlab/apputils-extension:announcements

# Root (as in a container) must say that it is meant.
LAB_FLAGS := --LabApp.default_url=/lab/tree/$(LESSON) $(if $(filter 0,$(shell id -u)),--allow-root)

# Two workers of one thread each: a small model gains little from a second thread. A file, and so a notebook, stays in
# one worker, and files start in order: the browser's, which take longest, come first.
TWO_AT_ONCE := --numprocesses 2 --dist loadscope --no-loadscope-reorder

.PHONY: help setup lab test lessons pretrain clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## the environment in .venv; nothing when it is up to date

lab: $(READY)  ## JupyterLab, opened on lesson 00
	$(VENV)/bin/jupyter-lab $(LAB_FLAGS)

test: $(READY)  ## style, library, solution notebooks, JupyterLab in a browser
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(TWO_AT_ONCE) --nbval-lax --nbval-current-env

lessons: $(READY)  ## notebooks from their masters in lessons/
	$(VENV)/bin/python tools/build_lessons.py

pretrain: $(READY)  ## the pocket model from nothing: some five hours on two CPU cores
	$(VENV)/bin/python -m tutorial_lib pretrain all

clean:  ## remove the environment and all caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -prune -exec rm -rf {} + -o -name .ipynb_checkpoints -prune -exec rm -rf {} +

# The stamp is written last: an interrupted set-up is taken up again by the next one.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "The course needs Python 3.11 or newer, and '$(PYTHON)' is not that."; \
		echo "Install one, then name it: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV). The first time takes a few minutes and about 2 GB, more with CUDA."
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install $(if $(CI),--quiet) --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(VENV)/bin/jupyter-labextension disable --level=sys_prefix $(NEWS)
	@touch $@
