# A fresh machine needs `make demo` and `make test`; both set up a virtual environment first.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SETUP := $(VENV)/.ready
PROMPTS := "a person walks forward, then waves with the left hand" "an exhausted person walks ahead" \
           "a woman takes a bow" "someone runs as fast as possible"

.PHONY: demo test test-all check bench gpu format clean
demo: $(SETUP)  ## text to motion on the embedded model; look at out/demo/index.html
	$(RUN) -m hftrainer generate $(PROMPTS) --model gotozero-nano --out out/demo
	@echo
	@echo "play them:      out/demo/index.html (any browser, no network)"
	@echo "the files:      out/demo/*.glb .bvh .npz .npy .mp4 (docs/files.md)"
	@echo "your own words: $(VENV)/bin/hftrainer generate \"a person waves\" --out out/mine"
	@echo "or once:        source $(VENV)/bin/activate   and then just: hftrainer generate ..."

test: $(SETUP)  ## the default tests
	$(RUN) -m pytest -n 2 -m "not slow and not gpu and not weights"

test-all: $(SETUP)  ## slow tests too, and those for a GPU or released weights where there are any
	$(RUN) -m pytest -n 2

check: $(SETUP)  ## style, types, then `make test`; what has to pass
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(MAKE) test

gpu: $(SETUP)  ## what there is to learn of this machine's GPU in nine minutes
	$(RUN) -m hftrainer bench gpu --minutes 9 --out out/gpu

format: $(SETUP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(SETUP)  ## what nano costs on this machine
	$(RUN) -m hftrainer bench sample --size gotozero-nano --codes 75

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,eval,viz,dev]'
	touch $(SETUP)

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache
