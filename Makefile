# Everything runs in .venv, made from pyproject.toml and constraints.txt.
# For another build of torch, such as that for CPUs: make repro TORCH='torch==2.13.0 --index-url ...'.
PYTHON ?= python3
TORCH ?= torch==2.13.0
JOBS ?= 1
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Where it is set, as in many images, each of the stages compiles all modules that it imports.
unexport PYTHONDONTWRITEBYTECODE

ESCI_REPO ?= https://github.com/amazon-science/esci-data
ESCI_REV ?= 7916cdf6ab75a462e77f20ab40428a10923998d5

.DEFAULT_GOAL := help
.PHONY: help setup params repro try plan costs quick test thorough check fix diff experiments leaderboard lock-current gate esci clean-cache bench bench-ray prove fuzz scale full-size tradeoff readme constraints serve browser plots

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(VENV)/.installed ## create .venv and install everything

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, not " + sys.version.split()[0] + ": make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	pip install --disable-pip-version-check --quiet $(TORCH)
	pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[run,dev]'
	@touch $@

params: setup ## check params.yaml
	python -m pipeline.params

repro: setup ## check params.yaml, then bring every result up to date; JOBS=2 runs two locales at a time
	python -m pipeline.repro --jobs '$(JOBS)'

try: setup ## run an experiment, params checked first: SET='encoder.es=labse index.us=hnsw'
	$(if $(strip $(SET)),,@echo "error: SET names no change. Run make try SET='encoder.es=labse'." >&2; exit 1)
	python -m pipeline.experiment $(SET)

plan: setup ## estimate the time, memory and disk of the stages; runs nothing
	python -m pipeline.plan

costs: setup ## compare the last plan with what the stages took since; writes reports/bench/costs.md
	python -m pipeline.plan --against-last-run

quick: setup ## run the quick tests: no processes, DVC, browsers or models
	pytest -n 2 --dist worksteal -m 'not slow and not dvc and not weights and not thorough'

test: setup ## run the tests that CI runs
	pytest -n 2 --dist worksteal -m 'not thorough'

thorough: setup ## run the tests that CI leaves out: more real data, the docs' code blocks, benchmarks
	pytest -n 2 --dist worksteal -m thorough -o faulthandler_timeout=3600

check: setup ## check format, lint and types
	ruff format --check .
	ruff check .
	mypy

fix: setup ## format the code, and fix what the linter can fix
	ruff format .
	ruff check --fix .

serve: setup ## search in the browser, on this machine alone (ARGS='--port 8080 --locale es')
	python -m pipeline.serve $(ARGS)

plots: setup ## draw the plots of DVC on a page that opens offline (ARGS='diff HEAD'); npm, the first time
	python -m pipeline.plots $(ARGS)

# The shell takes what these say from the environment: it may have quotes.
export BASE MARKDOWN

diff: setup ## compare the metrics with BASE (default: the merge base with main); MARKDOWN=FILE
	@base=$(if $(BASE),"$$BASE"); \
	[ -n "$$base" ] || base=$$(git merge-base origin/main HEAD 2>/dev/null || git merge-base main HEAD 2>/dev/null) || { \
	  echo 'error: there is no branch main or origin/main to compare with. Run make diff BASE=REVISION.' >&2; exit 1; \
	}; \
	python -m pipeline.compare "$$base" workspace $(if $(MARKDOWN),--markdown "$$MARKDOWN")

experiments: setup ## show what the experiments changed: settings and key metrics (ARGS='--num 5')
	python -m pipeline.experiments $(ARGS)

leaderboard: setup ## rank the encoders and systems of all branches, tags and experiments (ARGS='--markdown FILE')
	python -m pipeline.leaderboard $(ARGS)

# The exit status alone is not enough: it is 0 for a stage that is out of date and has its inputs in Git.
lock-current: setup ## fail unless dvc.lock matches the files; needs no data
	@plan=$$(dvc repro --dry --allow-missing 2>&1) && ! echo "$$plan" | grep --quiet 'Running stage' || { \
	  echo "$$plan" | grep --invert-match "didn't change" >&2; \
	  echo 'error: dvc.lock does not match these files. Run make repro, then commit dvc.lock and reports/.' >&2; exit 1; \
	}

# The whole folder at once: with an import per file, DVC fetches all of upstream's LFS objects each time.
# Where the LFS server refuses an object, DVC keeps its pointer, so the sizes are checked.
esci: setup ## download the official ESCI files (1.2 GB) to data/esci
	mkdir -p data
	@test -e data/esci || { \
	  dvc import $(ESCI_REPO) shopping_queries_dataset --rev $(ESCI_REV) --out data/esci || exit 1; \
	  if find data/esci -name '*.parquet' -size -1000c | grep -q .; then \
	    git rm --cached --quiet --ignore-unmatch data/esci.dvc; rm -rf data/esci data/esci.dvc; \
	    echo 'error: upstream sent Git LFS pointers instead of the files; its quota may be used up. Try again later.' >&2; \
	    exit 1; \
	  fi; \
	}
	@test $$(find data/esci -name 'shopping_queries_dataset_*s.parquet' -size +999c | wc -l) = 2 || { \
	  echo 'error: data/esci lacks a parquet file, or has only a part of one. Move it away and run make esci again.' >&2; \
	  exit 1; \
	}

full-size: setup ## generate a catalogue of ESCI's size in data/full-size (ARGS='--products 100000')
	python -m bench.full_size $(ARGS)

clean-cache: setup ## show the stored vectors; KEEP=GB: show what keeping only that much frees; YES=1: delete
	$(if $(filter-out 1,$(YES)),$(error YES must be 1 or left out (found $(YES))))python -m pipeline.store $(if $(KEEP),--keep $(KEEP)) $(if $(YES),--yes)

bench: setup ## time engines and measures against the usual libraries (ARGS='--texts 50')
	python -m bench.encode $(ARGS)
	python -m bench.batches
	python -m bench.rerank
	python -m bench.evaluate

prove: setup ## run the slow proofs: reuse, one edited product, memory, faults and kills of the stages from demo to report
	python -m bench.proofs
	python -m bench.faults
	python -m bench.interruptions

fuzz: setup ## damage every artefact at random and normalise random texts (ARGS='readers --seconds 3600 --seed 1')
	python -m bench.fuzz $(ARGS)

scale: setup ## measure the stages at 100 k, 400 k and 1.8 M products; one stage: ARGS=clean
	python -m bench.scale $(ARGS)

bench-ray: setup ## time a Ray cluster of two workers against one process (ARGS='--encoder minilm')
	python -m bench.ray $(ARGS)

tradeoff: setup ## compare every index with exact search (ARGS='--locale us --index hnsw')
	python -m pipeline.tradeoff $(ARGS)

browser: setup ## make a folder that searches in the visitor's browser (LOCALE=us OUT=build/browser/us)
	python -m pipeline.browser --locale '$(or $(LOCALE),us)' --out '$(or $(OUT),build/browser/$(or $(LOCALE),us))' $(ARGS)

gate: setup ## fail if an index loses more than index_gate of the exact top 100
	python -m pipeline.gate

readme: setup ## write the tables into README.md and docs, after make repro, bench, bench-ray and scale
	python -m bench.readme

constraints: ## pin the packages of .venv, except torch, in constraints.txt
	pip freeze --exclude-editable --exclude torch --exclude pip --exclude setuptools > constraints.txt
