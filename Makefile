# make quickstart   set up, train on the embedded data set, score, and say where the pictures are
# make test         set up, run every test; JOBS=4 runs four files at once
# make proof        the longer proofs: real photos, ViT-B at full size
# make onnx         set up an environment that writes ONNX, run its tests
# make lint         format and style
PYTHON ?= python3
VENV ?= .venv
# Test files at once; each takes up to 4 GB.
JOBS ?= 2
RUN = $(VENV)/bin/python
ONNX ?= .venv-onnx

.PHONY: quickstart test proof onnx lint format

quickstart: $(VENV)/.runtime
	$(RUN) launch.py --config=configs/quickstart.py --workdir=runs/quickstart

test: $(VENV)/.development
	$(RUN) -m pytest -m "not proof" --numprocesses=$(JOBS) --dist=loadfile

proof: $(VENV)/.development
	$(RUN) -m pytest -m proof

onnx: $(ONNX)/.ready
	$(ONNX)/bin/python -m pytest tests/test_onnx.py

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

$(ONNX)/.ready: requirements-onnx.txt
	$(PYTHON) -m venv $(ONNX)
	$(ONNX)/bin/pip install --quiet --disable-pip-version-check -r requirements-onnx.txt
	touch $@
