# The two commands: `make train` and `make test`. Both set up .venv from the lock, once.
# Python 3.11 to 3.13 with venv: the first of these that runs (a shim may be there without), or
# the one that is named: make train PYTHON=/path/to/python3.12
PYTHON ?= python3.11 python3.12 python3.13 python3
# For the small CPU build of torch: TORCH_PIP_ARGS="--index-url https://download.pytorch.org/whl/cpu"
TORCH_PIP_ARGS ?=
MINUTES ?= 1
# For a small trial; benchmarks/deliverables.py --help lists them.
DELIVERABLES_ARGS ?=
EVIDENCE_ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

.PHONY: train test lint type ui lock evidence deliverables verify-deliverables

train: .venv/.installed
	$(BIN)/python -m ppo_workbench model=maskable_ppo budget.minutes=$(MINUTES)

test: .venv/.installed
	$(BIN)/python -m pytest

lint: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

type: .venv/.installed
	$(BIN)/mypy

# Every figure about trading on README and pages; killed, the same command goes on.
evidence: .venv/.installed
	$(BIN)/python benchmarks/evidence.py $(EVIDENCE_ARGS)

# Hours; killed, the same command goes on. Code 3 (make says Error 3): the gates refuse.
deliverables: .venv/.installed
	$(BIN)/python benchmarks/deliverables.py $(DELIVERABLES_ARGS)

# Minutes; from the committed files alone.
verify-deliverables: .venv/.installed
	$(BIN)/python benchmarks/verify_deliverables.py

# The first experiment of a store has the number 1; the view has the figures as columns.
ui: .venv/.installed
	@echo "open http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=workbench&workflowType=machine_learning"
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
	$(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --workers 1 \
		--backend-store-uri "sqlite:///$${PPO_WORKBENCH_HOME:-.}/mlruns/mlflow.db"

# torch comes first: it has the one version that a pip configuration may serve as several builds.
# An interpreter that is there may come without pip: `uv venv` leaves none.
.venv/.installed: pyproject.toml requirements.lock
	@test -x $(BIN)/python || { for python in $(PYTHON); do \
		if "$$python" -c '$(SUITABLE)' 2>/dev/null; then exec "$$python" -m venv .venv; fi; \
	done; \
	echo "error: found no Python 3.11 to 3.13 that runs and has venv (tried: $(PYTHON));" \
		"install one (Debian, Ubuntu: apt install python3-venv)" \
		"or name one (make train PYTHON=/path/to/python3.12)" >&2; exit 1; }
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(BIN)/python -m ensurepip
	$(PIP) $(TORCH_PIP_ARGS) torch==2.13.0
	$(PIP) -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

# Newer versions within the ranges of pyproject.toml, for every interpreter at once; needs uv.
# A CPU build of torch satisfies the lock too, so what only a GPU build needs is left out.
GPU_ONLY := cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 \
	nvidia-nvshmem-cu13 triton
lock:
	uv lock --upgrade
	{ echo "# Every package of the environment for Python 3.11 to 3.13. Made by \`make lock\`."; \
	  uv export --frozen --no-hashes --no-annotate --no-header --no-emit-project \
	  $(addprefix --prune ,$(GPU_ONLY)); } > requirements.lock.new
	mv requirements.lock.new requirements.lock
