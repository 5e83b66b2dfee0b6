# Everything runs in .venv, made from pyproject.toml and constraints.txt.
# A GPU, or another build of torch: make repro TORCH='torch==2.13.0 --index-url ...' (README).
PYTHON ?= python3
TORCH ?= torch==2.13.0
JOBS ?= 1
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

ESCI_REPO ?= https://github.com/amazon-science/esci-data
ESCI_REV ?= 7916cdf6ab75a462e77f20ab40428a10923998d5

.DEFAULT_GOAL := help
.PHONY: help setup params repro plan costs quick test check fix diff lock-current gate esci clean-cache bench bench-ray prove scale full-size tradeoff readme constraints

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(VENV)/.installed ## make .venv and install everything

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, not " + sys.version.split()[0] + ": make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	pip install --disable-pip-version-check --quiet $(TORCH)
	pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

repro: setup ## check params.yaml, then bring every artefact up to date; JOBS=2: two locales at a time
	python -m pipeline.params
	python -m pipeline.repro --jobs $(JOBS)

plan: setup ## what the chosen params will take: time, memory, disk; nothing runs
	python -m pipeline.plan

costs: setup ## the last plan against what the stages took since, to reports/bench/costs.md
	python -m pipeline.plan --against-last-run

quick: setup ## the tests of every stage's rules: no processes, DVC, browsers or models
	pytest -n 2 -m 'not slow and not dvc and not weights'

test: setup ## all tests
	pytest

check: setup ## format, lint, types
	ruff format --check .
	ruff check .
	mypy

fix: setup ## format, and mend what the linter can
	ruff format .
	ruff check --fix .

diff: setup ## what moved since BASE (the merge base with main), and whether it is real; MARKDOWN=FILE
	@base='$(BASE)'; \
	[ -n "$$base" ] || base=$$(git merge-base origin/main HEAD 2>/dev/null || git merge-base main HEAD 2>/dev/null) || { \
	  echo 'error: no branch main or origin/main to find the merge base with; say BASE=REVISION' >&2; exit 1; \
	}; \
	python -m pipeline.compare "$$base" workspace $(if $(MARKDOWN),--markdown '$(MARKDOWN)')

# Exit status 0 alone would let pass a stage that is out of date with all it needs in Git.
lock-current: setup ## fail unless dvc.lock is that of these files; needs no data
	@plan=$$(dvc repro --dry --allow-missing 2>&1) && ! echo "$$plan" | grep --quiet 'Running stage' || { \
	  echo "$$plan" | grep --invert-match "didn't change" >&2; \
	  echo 'error: dvc.lock is not that of these files: run make repro, then commit dvc.lock and reports/' >&2; exit 1; \
	}

# The whole folder at once: an import a file would fetch all of upstream's LFS objects each time.
# DVC takes a pointer for the file where the LFS server refuses a single object: hence the look.
esci: setup ## bring the official ESCI files (1.2 GB) to data/esci
	mkdir -p data
	@test -e data/esci || { \
	  dvc import $(ESCI_REPO) shopping_queries_dataset --rev $(ESCI_REV) --out data/esci || exit 1; \
	  if find data/esci -name '*.parquet' -size -1000c | grep -q .; then \
	    git rm --cached --quiet --ignore-unmatch data/esci.dvc; rm -rf data/esci data/esci.dvc; \
	    echo 'error: upstream gave Git LFS pointers instead of the files (its quota may be used up): try later' >&2; \
	    exit 1; \
	  fi; \
	}
	@test $$(find data/esci -name 'shopping_queries_dataset_*s.parquet' -size +999c | wc -l) = 2 || { \
	  echo 'error: data/esci is there, but not with both parquet files whole; move it away and run this again' >&2; \
	  exit 1; \
	}

full-size: setup ## a made-up catalogue of ESCI's size and shape, to data/full-size (ARGS='--products 100000')
	python -m bench.full_size $(ARGS)

clean-cache: setup ## show the stored vectors; KEEP=GB: what that would free; with YES=1: free it
	python -m pipeline.store $(if $(KEEP),--keep $(KEEP)) $(if $(YES),--yes)

bench: setup ## engines against SentenceTransformer.encode (ARGS='--texts 50'), measures against pytrec_eval
	python -m bench.encode $(ARGS)
	python -m bench.evaluate

prove: setup ## the slow proofs: reuse, one edited product, memory, kills, faults in every stage
	python -m bench.proofs
	python -m bench.faults

scale: setup ## time and memory of the stages at 100 k, 400 k and 1.8 M products; one stage: ARGS=clean
	python -m bench.scale $(ARGS)

bench-ray: setup ## a Ray cluster of two workers against one process; ARGS='--encoder minilm'
	python -m bench.ray $(ARGS)

tradeoff: setup ## every index against exact search; other arguments: ARGS='--locale us --index hnsw'
	python -m pipeline.tradeoff $(ARGS)

gate: setup ## refuse an index that loses more than index_gate of the exact top 100
	python -m pipeline.gate

readme: setup ## put the tables into README.md and docs, after make repro and make bench
	python -m bench.readme

constraints: ## pin what .venv holds (all but torch) in constraints.txt
	pip freeze --exclude-editable --exclude torch --exclude pip --exclude setuptools > constraints.txt
