# The two commands: `make train` and `make test`. Both set up .venv from the lock, once.
PYTHON ?= python3.11
# For the small CPU build of torch: TORCH_PIP_ARGS="--index-url https://download.pytorch.org/whl/cpu"
TORCH_PIP_ARGS ?=
MINUTES ?= 1
# For a small trial; benchmarks/deliverables.py --help lists them.
DELIVERABLES_ARGS ?=
EVIDENCE_ARGS ?=
BIN := .venv/bin

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

ui: .venv/.installed
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
	$(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --workers 1 \
		--backend-store-uri "sqlite:///$${PPO_WORKBENCH_HOME:-.}/mlruns/mlflow.db"

# torch comes first: it has the one version that a pip configuration may serve as several builds.
.venv/.installed: pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check $(TORCH_PIP_ARGS) torch==2.13.0
	$(BIN)/pip install --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

lock: .venv/.installed
	{ echo "# Every package of the environment, pinned; torch stands without the local version so that"; \
	  echo "# a CPU or a GPU build of 2.13.0 both satisfy it. Made by \`make lock\`."; \
	  $(BIN)/pip freeze --exclude-editable | grep -iv '^ppo[-_]workbench\|^ray==\|^msgpack==' \
	  | sed 's/^\(torch==[0-9.]*\)+.*/\1/'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock
