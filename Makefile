# make quickstart   set up, train on the embedded data set, score, and say where the pictures are
# make test         set up, run every test
# make proof        the longer proofs: real photos, ViT-B at full size
# make bench        speed and memory beside PyTorch, scaling, start-up; ten minutes on two quiet cores
# make lint         format and style
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: quickstart test proof bench lint format

quickstart: $(VENV)/.runtime
	$(RUN) launch.py --config=configs/quickstart.py --workdir=runs/quickstart

test: $(VENV)/.development
	$(RUN) -m pytest -m "not proof"

proof: $(VENV)/.development
	$(RUN) -m pytest -m proof

BENCH = PYTHONPATH=. $(RUN) benchmarks
bench: $(VENV)/.development
	$(BENCH)/cpu_peers.py --what=forward
	$(BENCH)/cpu_peers.py --what=training --rounds=5
	$(BENCH)/scaling.py
	$(BENCH)/scaling.py --training --rounds=3
	$(BENCH)/expressions.py
	$(BENCH)/startup.py
	$(BENCH)/pipeline.py
	$(BENCH)/accelerator.py --torch

lint: $(VENV)/.development
	$(VENV)/bin/ruff format --check . && $(VENV)/bin/ruff check .

format: $(VENV)/.development
	$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix .

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dit_jax needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.development: requirements-dev.txt requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ $(VENV)/.runtime
