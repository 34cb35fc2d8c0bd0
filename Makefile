# A fresh machine needs `make demo` and `make test`; both set up a virtual environment first.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SETUP := $(VENV)/.ready
SMALL := $(VENV)/.small
PROMPTS := "a person walks forward" "someone does jumping jacks" "a man picks up a box" "someone dances the salsa"

.PHONY: demo serve test test-all test-faults check docs bench gpu fuzz fuzz-guided lock sbom format clean
demo: $(SMALL)  ## text to motion on the embedded model; look at out/demo/index.html
	$(RUN) -m hftrainer generate $(PROMPTS) --out out/demo
	@echo
	@echo "play them:      out/demo/index.html (any browser, no network)"
	@echo "the files:      out/demo/*.glb .bvh .npz .npy .mp4 (docs/files.md)"
	@echo "your own words: $(VENV)/bin/hftrainer generate \"a person waves\" --out out/mine"
	@echo "or once:        source $(VENV)/bin/activate   and then just: hftrainer generate ..."

serve: $(SMALL)  ## the web page at http://127.0.0.1:8000/ (PORT=9000 for another port)
	$(RUN) -m hftrainer serve --port $(or $(PORT),8000)

test: $(SETUP)  ## the default tests
	$(RUN) -m pytest -n 2 -m "not slow and not faults and not gpu and not weights"

test-all: $(SETUP)  ## slow tests too, and those for a GPU or released weights where there are any
	$(RUN) -m pytest -n 2

check: $(SETUP)  ## style, types, then `make test`; what has to pass
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(MAKE) test

docs: $(SETUP)  ## the documentation as a site: out/site/index.html, with search, for reading without a network
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet
	@echo "read it: out/site/index.html"

gpu: $(SETUP)  ## what there is to learn of this machine's GPU in nine minutes
	$(RUN) -m hftrainer bench gpu --minutes 9 --out out/gpu

test-faults: $(SETUP)  ## kills, full disks, files deleted underfoot; 200 kills a job (FAULTS=20 is quicker)
	FAULTS=$(or $(FAULTS),200) $(RUN) -m pytest -m faults tests/faults

fuzz: $(SETUP)  ## 100,000 inputs for every reader of files (RUNS=1000 is quicker; READERS="bvh npy"); finds go to tests/fuzz/corpus
	$(RUN) -W ignore -m tests.fuzz.run $(or $(READERS),all) --runs $(or $(RUNS),100000)

fuzz-guided: $(SETUP)  ## as many for each, guided by what they cover (atheris)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt atheris
	$(RUN) -W ignore -m tests.fuzz.guided $(or $(READERS),all) --runs $(or $(RUNS),100000)

lock: $(SETUP)  ## requirements.lock and requirements-cpu.lock anew, from constraints.txt
	$(RUN) scripts/lock.py

sbom: $(SETUP)  ## what is installed, as CycloneDX, with the licences of all
	$(RUN) -m pip install --quiet --disable-pip-version-check --target out/cyclonedx cyclonedx-bom
	PYTHONPATH=out/cyclonedx $(RUN) -m cyclonedx_py environment $(VENV) --output-file out/sbom.json
	$(RUN) scripts/licences.py

format: $(SETUP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(SETUP)  ## what nano costs on this machine
	$(RUN) -m hftrainer bench sample --size gotozero-nano --codes 75

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,eval,viz,serve,dev]'
	touch $(SETUP) $(SMALL)

# what making motions and serving them needs: 50 packages of 128
$(SMALL): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[viz,serve]'
	touch $(SMALL)

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache
