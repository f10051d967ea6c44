"""Training within a budget: reproducible, evaluated in time, selected, interrupted cleanly."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.learning.builders import learning_config, make_env
from threadpoolctl import (  # type: ignore[import-untyped]
    threadpool_info,
    threadpool_limits,
)

from ppo_workbench.config import Config, Learner, ModelType, Schedule, Select
from ppo_workbench.delivery.network import PolicyWeights
from ppo_workbench.learning import training
from ppo_workbench.learning.budget import Budget
from ppo_workbench.learning.checkpoints import Checkpoint
from ppo_workbench.learning.training import (
    Hooks,
    Standing,
    TrainingResult,
    Validation,
    train_model,
)

ROOT = Path(__file__).parents[2]
EVALUATIONS = 4
CLEARLY = 1.5


class Watcher:
    """Hooks that keep what they are told; scores are given or computed from the weights."""

    def __init__(self, scores: list[float] | None = None, interrupt_at: int | None = None) -> None:
        self.scores = None if scores is None else iter(scores)
        self.interrupt_at = interrupt_at
        self.recorded: list[tuple[int, dict[str, float]]] = []
        self.standings: list[Standing] = []
        self.checkpoints: list[Checkpoint] = []
        self.interruptions: list[int] = []

    def evaluate(self, weights: PolicyWeights) -> Validation:
        score = float(weights.flat.sum()) if self.scores is None else next(self.scores)
        parts = np.full(3, score, np.float32)
        return Validation(score, {"sharpe_annual": score}, parts)

    def clearly_better(self, earlier: Validation, last: Validation) -> bool:
        assert (earlier.parts == earlier.score).all()  # also after a checkpoint
        return earlier.score > last.score + CLEARLY

    def record(self, metrics: dict[str, float], step: int) -> None:
        self.recorded.append((step, metrics))

    def progress(self, standing: Standing) -> None:
        self.standings.append(standing)
        if len(self.standings) == self.interrupt_at:
            signal.raise_signal(signal.SIGINT)

    def hooks(self) -> Hooks:
        told = self.interruptions.append
        return Hooks(
            *(self.evaluate, self.clearly_better, self.record, self.progress),
            *(self.checkpoints.append, lambda: told(1)),
        )


def _config(**changes: Any) -> Config:
    return learning_config(
        **({"budget__timesteps": 1024, "budget__evaluations": EVALUATIONS} | changes)
    )


def _train(config: Config, watcher: Watcher, resume: Checkpoint | None = None) -> TrainingResult:
    return train_model(config, make_env(config), 400, watcher.hooks(), resume)


def fingerprint(learner: str) -> str:
    """Return weights and evaluations of one training run as text; run by another process too."""
    result = _train(_config(model__learner=Learner(learner)), Watcher())
    weights = b"".join(t.numpy().tobytes() for t in result.last_tensors.values())
    return json.dumps(
        {
            "weights": sha256(weights).hexdigest(),
            "evaluations": [(step, found.score) for step, found in result.evaluations],
        }
    )


def test_train_model_in_two_processes_with_one_seed_is_identical() -> None:
    code = (
        "from tests.learning.test_training import fingerprint\n"
        "print(fingerprint('native'), fingerprint('sb3'), sep='\\n')"
    )
    paths = os.pathsep.join([str(ROOT), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    here = [fingerprint("native"), fingerprint("sb3")]
    assert ran.stdout.splitlines() == here
    assert here[0] != here[1]


def test_train_model_keeps_blas_to_one_thread_and_gives_it_back() -> None:
    class Counter(Watcher):
        def evaluate(self, weights: PolicyWeights) -> Validation:
            seen.append(_blas_threads())
            return super().evaluate(weights)

    seen: list[set[int]] = []
    with threadpool_limits(2, "blas"):
        _train(_config(), Counter())
        assert _blas_threads() == {2}
    assert seen == [{1}] * EVALUATIONS


def _blas_threads() -> set[int]:
    return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}


def test_train_model_with_another_seed_differs() -> None:
    first, second = (_train(_config(seed=seed), Watcher()) for seed in (0, 1))
    name = "action_net.weight"
    assert not torch.equal(first.last_tensors[name], second.last_tensors[name])


@pytest.mark.parametrize("learner", list(Learner))
@pytest.mark.parametrize("model_type", list(ModelType))
def test_train_model_uses_its_timesteps_and_evaluates_in_even_steps(
    learner: Learner, model_type: ModelType
) -> None:
    watcher = Watcher()
    config = _config(model__learner=learner, model__type=model_type)
    result = _train(config, watcher)
    assert result.timesteps == result.planned_timesteps == 1024
    assert [step for step, _ in result.evaluations] == [256, 512, 768, 1024]
    assert [step for step, _ in watcher.recorded] == [128 * k for k in range(1, 9)]
    assert result.passes == 1024 / 400
    assert not result.interrupted
    seen = [step for step, metrics in watcher.recorded if "validation/sharpe_annual" in metrics]
    assert seen == [256, 512, 768, 1024]
    for _, metrics in watcher.recorded:
        assert {"train/approx_kl", "train/loss", "mask/any", "time/passes"} <= metrics.keys()
        assert np.isfinite(list(metrics.values())).all()
    assert watcher.standings[-1].validation is not None
    assert result.episodes > 20


def test_train_model_selects_the_last_evaluation_unless_one_is_clearly_better() -> None:
    near = _train(_config(), Watcher([1.0, 2.0 + CLEARLY, 1.0, 2.0]))
    assert near.selected_timesteps == near.timesteps
    scores = [1.0, 5.0, 1.0, 2.0]
    best = _train(_config(), Watcher(scores))
    assert best.selected_timesteps == 512
    last = _train(_config(select=Select.last), Watcher(scores))
    assert last.selected_timesteps == last.timesteps == 1024
    name = "action_net.weight"
    assert torch.equal(last.tensors[name], last.last_tensors[name])
    assert torch.equal(best.last_tensors[name], last.last_tensors[name])
    assert not torch.equal(best.tensors[name], best.last_tensors[name])


def test_train_model_keeps_the_weights_that_were_evaluated() -> None:
    class Keeper(Watcher):
        def evaluate(self, weights: PolicyWeights) -> Validation:
            kept.append(weights.layers()[-1][1])
            return super().evaluate(weights)

    kept: list[Any] = []
    result = _train(_config(), Keeper([0.0, 9.0, 0.0, 0.0]))
    head = result.tensors["action_net.bias"].numpy()
    np.testing.assert_array_equal(kept[1], head)


@pytest.mark.parametrize("learner", list(Learner))
def test_sigint_ends_training_cleanly_and_keeps_the_model(learner: Learner) -> None:
    before = signal.getsignal(signal.SIGINT)
    config = _config(model__learner=learner, budget__timesteps=100_000)
    watcher = Watcher(interrupt_at=3)
    result = _train(config, watcher)
    assert result.interrupted
    assert watcher.interruptions == [1]
    assert result.timesteps == 128 * 4  # the rollout under way is finished and learned from
    assert len(result.evaluations) == 1
    assert result.selected_timesteps == 128 * 4
    assert torch.isfinite(result.tensors["action_net.weight"]).all()
    assert signal.getsignal(signal.SIGINT) is before


def test_second_sigint_is_not_swallowed() -> None:
    class Impatient(Watcher):
        def progress(self, standing: Standing) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        _train(_config(), Impatient())


def test_episode_budget_ends_at_its_episodes() -> None:
    config = _config(budget__timesteps=None, budget__episodes=60)
    result = _train(config, Watcher())
    assert 60 <= result.episodes < 60 + 12  # 128 decisions finish 6 or 7 episodes of 20
    assert result.planned_timesteps is not None


class BusyMachine(Watcher):
    """Turns the clock by a second a rollout, by a quarter of it once the machine is free."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.now = 0.0
        budget = partial(Budget, clock=lambda: self.now)
        monkeypatch.setattr(training, "Budget", budget)

    def progress(self, standing: Standing) -> None:
        super().progress(standing)
        self.now += 1.0 if standing.budget.timesteps < 128 * 5 else 0.25  # exact


def test_minutes_on_a_busy_machine_are_planned_again_and_resumed_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = _config(
        budget__timesteps=None,
        budget__minutes=0.25,
        model__learning_rate_schedule=Schedule.linear,
        checkpoint__every_seconds=1e9,
    )
    machine = BusyMachine(monkeypatch)
    whole = _train(config, machine)
    assert machine.now == pytest.approx(15.0, abs=0.5)
    rates = [metrics["train/learning_rate"] for _, metrics in machine.recorded]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.05 * rates[0]
    plans = [metrics.get("time/planned_timesteps") for _, metrics in machine.recorded]
    assert sorted({plan for plan in plans if plan}) == sorted({plan for _, plan in whole.plan})
    assert whole.plan[-1][1] > 1.5 * whole.plan[0][1]

    kept = [checkpoint.document["budget"] for checkpoint in machine.checkpoints]
    count = len(whole.plan)
    assert [len(state["plan"]) for state in kept] == [*range(1, count + 1), count]
    for checkpoint in machine.checkpoints[:-1]:  # one at each plan
        again = BusyMachine(monkeypatch)
        resumed = _train(config, again, checkpoint)
        assert resumed.plan == whole.plan
        for name, tensor in whole.last_tensors.items():
            assert torch.equal(tensor, resumed.last_tensors[name])


@pytest.mark.parametrize("learner", list(Learner))
def test_linear_schedules_go_to_zero(learner: Learner) -> None:
    config = _config(
        model__learner=learner,
        model__learning_rate_schedule=Schedule.linear,
        model__clip_range_schedule=Schedule.linear,
    )
    watcher = Watcher()
    _train(config, watcher)
    rates = [metrics["train/clip_range"] for _, metrics in watcher.recorded]
    assert rates == pytest.approx([0.2 * (1 - k / 8) for k in range(8)])
    learning = [metrics["train/learning_rate"] for _, metrics in watcher.recorded]
    assert learning == pytest.approx([3e-4 * (1 - k / 8) for k in range(8)])


def test_train_model_with_two_threads_gives_the_weights_of_one() -> None:
    weights = []
    for threads in (1, 2):
        changes = {"model__n_steps": 256, "model__batch_size": 512, "budget__timesteps": 2048}
        weights.append(_train(_config(**changes, threads=threads), Watcher()).last_tensors)
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
