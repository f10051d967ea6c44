"""Train a model within a budget: evaluate on the way, keep the best, end cleanly."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ppo_workbench.config import Config, ModelType, Select
from ppo_workbench.config.arrays import Singles
from ppo_workbench.delivery.network import PolicyWeights, policy_weights
from ppo_workbench.learning.budget import Budget, evaluations_due
from ppo_workbench.learning.checkpoints import Checkpoint, capture_model, restore_model
from ppo_workbench.learning.models import build_model
from ppo_workbench.learning.vec_env import TradingVecEnv

PARTS = "evaluation."  # their tensors in a checkpoint


@dataclass(frozen=True)
class Validation:
    """One evaluation of a checkpoint on the validation split.

    Attributes:
        score: What checkpoints are chosen by, more is better.
        metrics: Flat scorecard.
        parts: float32 (T,), what each session adds to the score to first order, by which
            checkpoints are compared in pairs.
    """

    score: float
    metrics: dict[str, float]
    parts: Singles = field(default_factory=lambda: np.empty(0, np.float32))


@dataclass(frozen=True)
class Hooks:
    """What training tells the rest of the program; nothing flows back but the scores.

    Attributes:
        evaluate: Score the present weights on the validation split.
        clearly_better: Whether an earlier checkpoint, the first argument, is to be kept instead
            of the last.
        record: Take metrics at a number of timesteps.
        progress: Show where training is (called after every rollout).
        save: Keep a checkpoint; called every `checkpoint.every_seconds`, when the plan of the
            budget changes, and at the end.
        interrupted: Say what the first Ctrl-C brings about; called in a thread of its own.
    """

    evaluate: Callable[[PolicyWeights], Validation]
    clearly_better: Callable[[Validation, Validation], bool]
    record: Callable[[dict[str, float], int], None] = lambda metrics, timesteps: None
    progress: Callable[["Standing"], None] = lambda standing: None
    save: Callable[[Checkpoint], None] = lambda checkpoint: None
    interrupted: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Standing:
    """Where training is."""

    budget: Budget
    steps_per_second: float
    passes: float
    episode_reward: float
    metrics: dict[str, float]
    validation: Validation | None


@dataclass
class TrainingResult:
    """What training leaves behind.

    Attributes:
        tensors: State dict of the selected checkpoint.
        last_tensors: State dict at the end.
        selected_timesteps: When the selected checkpoint was taken.
        timesteps, episodes, minutes: What was used.
        planned_timesteps: What the budget came to in the end.
        plan: (timestep, planned timesteps) of every plan that was measured; see `Budget`.
        passes: Times the training bars were passed over, in expectation.
        interrupted: The user ended it.
        evaluations: Timesteps and what was found there, in order.
    """

    tensors: dict[str, torch.Tensor]
    last_tensors: dict[str, torch.Tensor]
    selected_timesteps: int
    timesteps: int
    episodes: int
    minutes: float
    planned_timesteps: int | None
    plan: list[tuple[int, int]]
    passes: float
    interrupted: bool
    evaluations: list[tuple[int, Validation]] = field(default_factory=list)


class _Capture(KVWriter):
    """Catch what SB3 logs, under its own keys."""

    def __init__(self) -> None:
        self.latest: dict[str, float] = {}

    def write(self, key_values: dict[str, object], key_excluded: Any, step: int = 0) -> None:
        self.latest = {
            key: float(value)
            for key, value in key_values.items()
            if isinstance(value, int | float) or hasattr(value, "__float__")
        }

    def close(self) -> None:
        pass


class _Interrupt:
    """First Ctrl-C or SIGTERM asks for a clean end, the second one insists."""

    def __init__(self, say: Callable[[], None] | None = None) -> None:
        self.asked = False
        self._say = say

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self._say is not None:  # in a thread: this one may be in the middle of printing
            threading.Thread(target=self._say, name="say interrupted").start()


@contextmanager
def interruptible(say: Callable[[], None] | None = None) -> Iterator[_Interrupt]:
    """Turn the first Ctrl-C or SIGTERM inside the block into a wish, `asked`.

    Args:
        say: Told at once that it was; called in a thread of its own.
    """
    interrupt = _Interrupt(say)
    if threading.current_thread() is not threading.main_thread():
        yield interrupt  # signals belong to the main thread
        return
    kept = {s: signal.signal(s, interrupt) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


class _Supervisor(BaseCallback):
    """Follow training from rollout to rollout: count, evaluate, select, stop."""

    def __init__(
        self,
        config: Config,
        budget: Budget,
        hooks: Hooks,
        capture: _Capture,
        train_bars: int,
        interrupt: _Interrupt,
    ) -> None:
        super().__init__()
        self._config, self._budget, self._hooks = config, budget, hooks
        self._capture, self._train_bars, self._interrupt = capture, train_bars, interrupt
        self.evaluations_due = 0
        self._stop = False
        self._pauses = False
        self._paused = False
        self._saved_at = 0.0
        self._seen_timesteps = 0
        self._evaluations: list[tuple[int, Validation]] = []
        self._best: tuple[int, dict[str, torch.Tensor]] | None = None  # of the evaluations

    def _on_training_start(self) -> None:
        if not self._pauses or self.model.num_timesteps == 0:
            self._budget.start()

    def _on_step(self) -> bool:
        return not (self._stop or self._paused)

    @property
    def _env(self) -> TradingVecEnv:
        env = self.training_env
        assert isinstance(env, TradingVecEnv)
        return env

    def _on_rollout_start(self) -> None:
        """Runs after the update that followed the last rollout."""
        if self.model.num_timesteps > self._seen_timesteps:
            self._seen_timesteps = self.model.num_timesteps
            self._after_update()

    def _after_update(self) -> None:
        budget = self._budget
        replanned = budget.update(self.model.num_timesteps, self._env.statistics.episodes)
        self._stop = budget.exhausted or self._interrupt.asked
        metrics = dict(self._capture.latest)
        # SB3 writes the figures of an update only after the next rollout: take them now.
        metrics |= {key: float(value) for key, value in self.logger.name_to_value.items()}
        metrics |= self._env.statistics.take(self._env.batch.market.space.names)
        metrics["time/passes"] = self._passes()
        if budget.plan:
            metrics["time/planned_timesteps"] = float(budget.plan[-1][1])
        validation = None
        due = evaluations_due(self._config.budget, budget.fraction, budget.timesteps)
        if self._stop or due > self.evaluations_due:
            self.evaluations_due = due
            validation = self._evaluate()
            metrics |= {f"validation/{k}": v for k, v in validation.metrics.items()}
            self._paused = self._pauses
        self._hooks.record(metrics, self.model.num_timesteps)
        self._hooks.progress(self._standing(metrics, validation))
        every = self._config.checkpoint.every_seconds
        waited = budget.elapsed_seconds - self._saved_at
        # At the end too: what follows may be killed, or find no room for the model.
        due = every is not None and (waited >= every or self._stop or replanned)
        if due or self._interrupt.asked:
            self._hooks.save(self._checkpoint())
            self._saved_at = budget.elapsed_seconds

    def _checkpoint(self) -> Checkpoint:
        """Copy the whole state of the run, between two rollouts."""
        checkpoint = capture_model(self.model, self._env)  # type: ignore[arg-type]
        document, tensors = checkpoint.document, checkpoint.tensors
        document["budget"] = self._budget.state()
        document["evaluations_due"] = self.evaluations_due
        document["evaluations"] = [
            (step, found.score, found.metrics) for step, found in self._evaluations
        ]
        tensors |= {
            f"{PARTS}{k}": torch.from_numpy(found.parts)
            for k, (_, found) in enumerate(self._evaluations)
        }
        document["stopped"] = self._budget.exhausted
        if self._best is not None:
            document["best"] = self._best[0]
            tensors |= {f"best.{key}": value for key, value in self._best[1].items()}
        return checkpoint

    def pause_at_evaluation(self) -> None:
        """Let `learn` return after the next evaluation."""
        self._pauses, self._paused = True, False

    @property
    def finished(self) -> bool:
        """Whether the budget, or the user, has ended training."""
        return self._stop

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take over the state of the run that is resumed."""
        document = checkpoint.document
        self._budget.restore(document["budget"])
        self._saved_at = document["budget"]["used_seconds"]
        self._seen_timesteps = document["num_timesteps"]
        self.evaluations_due = document["evaluations_due"]
        self._evaluations = [
            (step, Validation(score, metrics, checkpoint.tensors[f"{PARTS}{k}"].numpy()))
            for k, (step, score, metrics) in enumerate(document["evaluations"])
        ]
        self._stop = document["stopped"]
        best = document.get("best")
        if best is not None:
            prefix = "best."
            tensors = {
                key.removeprefix(prefix): value
                for key, value in checkpoint.tensors.items()
                if key.startswith(prefix)
            }
            self._best = best, tensors

    def _passes(self) -> float:
        return self.model.num_timesteps / self._train_bars

    def _standing(self, metrics: dict[str, float], validation: Validation | None) -> Standing:
        seconds = max(self._budget.elapsed_seconds, 1e-9)
        return Standing(
            budget=self._budget,
            steps_per_second=self.model.num_timesteps / seconds,
            passes=self._passes(),
            episode_reward=metrics.get("rollout/ep_rew_mean", float("nan")),
            metrics=metrics,
            validation=validation,
        )

    def _evaluate(self) -> Validation:
        tensors = deepcopy(self.model.policy.state_dict())
        weights = policy_weights(tensors, self._config.model.activation)
        validation = self._hooks.evaluate(weights)
        if self._best is None or validation.score > self._best_validation.score:
            self._best = len(self._evaluations), tensors
        self._evaluations.append((self.model.num_timesteps, validation))
        return validation

    @property
    def _best_validation(self) -> Validation:
        assert self._best is not None
        return self._evaluations[self._best[0]][1]

    def result(self) -> TrainingResult:
        """Collect what training leaves: the last checkpoint, or the best where it is clearly so."""
        last = deepcopy(self.model.policy.state_dict())
        timesteps = self._budget.timesteps
        step, tensors = timesteps, last
        if self._config.select is Select.best and self._best is not None:
            at, best = self._best
            found = self._evaluations[-1][1]
            if self._hooks.clearly_better(self._best_validation, found):
                step, tensors = self._evaluations[at][0], best
        return TrainingResult(
            tensors=tensors,
            last_tensors=last,
            selected_timesteps=step,
            timesteps=timesteps,
            episodes=self._budget.episodes,
            minutes=self._budget.elapsed_seconds / 60,
            planned_timesteps=self._budget.planned_timesteps,
            plan=self._budget.plan,
            passes=timesteps / self._train_bars,
            interrupted=self._interrupt.asked,
            evaluations=self._evaluations,
        )


class Training:
    """One learner that is trained to its end, or from evaluation to evaluation.

    Several of them can so advance in lockstep in one process, as the seeds of a trial do.
    """

    def __init__(
        self,
        config: Config,
        env: TradingVecEnv,
        train_bars: int,
        hooks: Hooks,
        resume: Checkpoint | None = None,
        interrupt: _Interrupt | None = None,
    ) -> None:
        """Build the learner.

        Args:
            config: The experiment; `config.seed` seeds everything.
            env: Batched environment over the training split.
            train_bars: Bars of the training split, for the number of passes.
            hooks: Evaluation, recording and display.
            resume: Go on from this state, bit for bit where the budget is in timesteps.
            interrupt: Asked between rollouts whether to end.
        """
        budget = Budget(config.budget)
        self._config = config
        torch.set_num_threads(1)  # the first weights, too, shall not depend on threads
        self._model = build_model(config.model, env, budget, config.seed, config.threads)
        torch.set_num_threads(config.threads)
        capture = _Capture()
        self._model.set_logger(Logger(folder=None, output_formats=[capture]))
        self._supervisor = _Supervisor(
            config, budget, hooks, capture, train_bars, interrupt or _Interrupt()
        )
        self._env = env
        self._fresh = resume is None
        if resume is not None:
            restore_model(self._model, env, resume)
            self._supervisor.resume(resume)

    def advance(self) -> bool:
        """Train until the next evaluation was made; return whether there is more to train."""
        self._supervisor.pause_at_evaluation()
        self.run()
        return not self._supervisor.finished

    @property
    def timesteps(self) -> int:
        """Timesteps trained so far."""
        return self._model.num_timesteps

    @property
    def evaluations_due(self) -> int:
        """Evaluations that the budget asks for up to here; a long rollout makes one of several."""
        return self._supervisor.evaluations_due

    def result(self) -> TrainingResult:
        """Collect what training leaves."""
        return self._supervisor.result()

    def run(self) -> None:
        """Train until the budget ends, or to the pause that `advance` asked for."""
        options: dict[str, Any] = {
            "callback": self._supervisor,
            "reset_num_timesteps": self._fresh,
        }
        if self._config.model.type is ModelType.maskable_ppo:
            options["use_masking"] = True
        self._fresh = False
        # BLAS serves the native kernels, whose products are too small to share: with two
        # BLAS threads a run was measured 4 to 10 times slower.  They share out tiles instead.
        with threadpool_limits(1, "blas"):
            # The supervisor ends training, SB3's own limit never does.
            self._model.learn(2**62, **options)
        # A learner that was stopped within a rollout has moved the environments since.
        self._model._last_obs = self._env.batch.observations.copy()


def train_model(
    config: Config,
    env: TradingVecEnv,
    train_bars: int,
    hooks: Hooks,
    resume: Checkpoint | None = None,
) -> TrainingResult:
    """Train the configured algorithm on `env` until the budget ends or the user does.

    See `Training` for the arguments.
    """
    with interruptible(hooks.interrupted) as interrupt:
        training = Training(config, env, train_bars, hooks, resume, interrupt)
        training.run()
    return training.result()
