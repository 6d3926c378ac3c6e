# Interlinear. `make help` lists the targets; whatever they make stays inside this checkout (pip's own cache aside).
.DEFAULT_GOAL := help
.PHONY: help run test check train export bench race protos lock clean
.DELETE_ON_ERROR:

PYTHON ?= python3
RECIPE ?= training/recipes/en-fr.toml
OUTPUT ?= runs/en-fr
CHECKPOINT ?= $(OUTPUT)/best
BUNDLE ?= bundles/en-fr
GENERATED ?= .
RUN := .venv/run/bin
DEV := .venv/dev/bin

# The same answer on every machine: UTF-8 whatever the locale, nothing of the caller's Python, no file in /tmp.
export PYTHONUTF8 := 1
export PYTHONNOUSERSITE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TMPDIR := $(CURDIR)/.venv/tmp
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

help: ## list the targets
	@echo "Targets, with the variables they read in capitals (make train RECIPE=my.toml):"
	@sed -nE 's/^([a-z]+):[^#]*## /  \1\t/p' Makefile | expand -t 11

run: .venv/run/ready ## serve the embedded English-French bundle: gRPC on 127.0.0.1:50051, HTTP on 127.0.0.1:8080
	@exec $(RUN)/interlinear serve

test: check ## run check, then every test
	$(DEV)/python -m pytest

check: .venv/dev/ready ## check formatting, lint, types, import contracts and that service/pb is what protos/ says
	$(DEV)/ruff format --check .
	$(DEV)/ruff check .
	$(DEV)/mypy
	$(DEV)/lint-imports
	@$(MAKE) --no-print-directory protos GENERATED=.venv/tmp/generated
	@cd .venv/tmp/generated/service/pb && for file in *; do diff "$$file" "$(CURDIR)/service/pb/$$file" >&2 || \
	    { echo "service/pb/$$file is stale: run make protos" >&2; exit 1; }; done

train: .venv/dev/ready ## train the model that RECIPE describes into OUTPUT; the same command resumes it
	$(DEV)/python -m training $(RECIPE) $(OUTPUT)

export: .venv/dev/ready ## turn CHECKPOINT into the bundle folder BUNDLE, refused if the two disagree; ARGS="--help" for more
	$(DEV)/python -m exporters $(CHECKPOINT) $(BUNDLE) $(ARGS)

bench: .venv/dev/ready ## measure training and serving on this machine
	$(DEV)/python -m tests.benchmarks.benchmark $(ARGS)

race: .venv/dev/ready ## race CTranslate2 and Joey NMT, installed in .venv/race (once); ARGS=--quick for a shorter one
	$(DEV)/python -m tests.benchmarks.race $(ARGS)

# google/rpc/*.proto stand in site-packages.
GOOGLE_PROTOS = $$($(DEV)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
protos: .venv/dev/ready ## generate service/pb from protos/
	@mkdir -p $(GENERATED)
	$(DEV)/python -m grpc_tools.protoc -Iservice/pb=protos/interlinear/v1 -I$(GOOGLE_PROTOS) --python_out=$(GENERATED) \
	    --pyi_out=$(GENERATED) --grpc_python_out=$(GENERATED) service/pb/interlinear.proto

# Both locks come from one environment, grown once, so they agree on what they share. CUDA wheels and local version
# labels (+cpu) are left out: which build of torch is right is the machine's business.
FREEZE = .venv/lock/bin/python -m pip freeze --exclude interlinear | sed -E 's/\+[a-z0-9.]+$$//; /^(nvidia|cuda|triton)/d'
lock: ## resolve requirements/*.lock anew from what pyproject.toml allows
	@mkdir -p .venv/tmp
	$(PYTHON) -m venv --clear .venv/lock
	.venv/lock/bin/python -m pip install --quiet '.[cpu,service]'
	($(LOCK_HEADER); $(FREEZE)) >requirements/serving.lock
	.venv/lock/bin/python -m pip install --quiet '.[dev]'
	($(LOCK_HEADER); $(FREEZE)) >requirements/development.lock
LOCK_HEADER = echo "\# Made by 'make lock' with $$($(PYTHON) --version). Edit pyproject.toml instead."

clean: ## remove the environments and caches, nothing else
	rm -rf .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

.venv/run/ready: requirements/serving.lock
.venv/dev/ready: requirements/development.lock
.venv/%/ready:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is missing or older than 3.11;" \
	    "install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@echo "Setting up $(@D) from $< (once)"
	@mkdir -p .venv/tmp
	@$(PYTHON) -m venv --clear $(@D) || { echo "error: no environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(@D)/bin/python -m pip install --quiet --requirement $<
	@$(@D)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@
