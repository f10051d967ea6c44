"""The training itself: live progress, checkpoints, resuming."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numba
import torch

from ppo_workbench import plugins
from ppo_workbench.config import (
    CHANGES_ON_RESUME,
    ArtifactError,
    BudgetConfig,
    CheckpointConfig,
    DivergedError,
    Raw,
)
from ppo_workbench.delivery.artifact import (
    ArtifactPaths,
    artifact_paths,
    load_metadata,
    save_artifact,
)
from ppo_workbench.delivery.describe import plain
from ppo_workbench.delivery.metadata import Metadata
from ppo_workbench.delivery.network import PolicyWeights
from ppo_workbench.jit import CACHE_ENABLED
from ppo_workbench.learning.budget import Budget
from ppo_workbench.learning.checkpoints import (
    SUFFIX,
    Checkpoint,
    CheckpointError,
    Owner,
    find_checkpoint,
    read_checkpoint,
    read_header,
    write_checkpoint,
)
from ppo_workbench.learning.native.update import TILE
from ppo_workbench.learning.progress import ProgressState, WorkbenchConsole, command_line
from ppo_workbench.learning.training import (
    Hooks,
    Standing,
    TrainingResult,
    Validation,
    train_model,
)
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.pipeline.models.stored import run_on_split, trained_policy
from ppo_workbench.pipeline.train.scores import clearly_better, validated
from ppo_workbench.records.tracking import Tracker
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.trading.experiment import Experiment

WARM_UP_BARS = 100


def learn(
    experiment: Experiment,
    env: TradingVecEnv,
    console: WorkbenchConsole,
    tracker: Tracker,
    keeper: "Keeper",
    resumed: "Resumed | None",
) -> TrainingResult:
    """Train with live progress on the console and metrics in the record."""
    config, latest = experiment.config, _Latest()
    progress = console.training_progress()

    hooks = Hooks(
        evaluate=lambda weights: score_on_validation(experiment, weights),
        clearly_better=clearly_better,
        record=tracker.log_metrics,
        progress=lambda standing: progress.update(latest.state(standing)),
        save=keeper.save,
        interrupted=lambda: console.show(keeper.what_happens()),
    )
    train_bars = experiment.train_bars
    if not _is_compiled():
        console.show("compiling for about a minute, on the first run only ...")
    with console.waiting("preparing the learner"):
        compiles = "Ctrl-C: ends once the kernels are compiled; Ctrl-C again ends at once"
        warm_up(experiment, lambda: console.show(compiles))
    progress.start(Budget(config.budget).describe())
    try:
        checkpoint = resumed.checkpoint if resumed else None
        return train_model(config, env, train_bars, hooks, checkpoint)
    finally:
        progress.stop()


def score_on_validation(experiment: Experiment, weights: PolicyWeights) -> Validation:
    """Score weights on the validation split, as training does."""
    policy = trained_policy(experiment.config.model.type, weights)
    trace = run_on_split(experiment, policy, "validation")
    return validated(trace, scorecard(trace))


def _is_compiled() -> bool:
    """Say whether an earlier run has left its machine code in the cache."""
    if not CACHE_ENABLED:
        return False
    return any(Path(numba.config.CACHE_DIR).rglob("backtest._run*.nbc"))  # type: ignore[attr-defined]


def warm_up(experiment: Experiment, interrupted: Callable[[], None] = lambda: None) -> None:
    """Compile or load all kernels before the clock starts: train on as little as can be.

    Else the first run of a budget of minutes would spend it on compiling, and calibrate its
    schedules by that.

    Args:
        experiment: What is trained then.
        interrupted: As in `Hooks`.

    Raises:
        KeyboardInterrupt: The user does not want to wait; there is no model to keep yet.
    """
    config = experiment.config
    steps, rows = (2, 2) if config.threads == 1 else (TILE, 2 * TILE)  # enough to be shared
    model = replace(config.model, n_envs=2, n_steps=steps, batch_size=rows, n_epochs=1)
    budget = BudgetConfig(timesteps=2 * steps, evaluations=1)
    config = replace(config, model=model, budget=budget, checkpoint=CheckpointConfig(None))
    validation = experiment.splits["validation"]
    short = replace(validation, stop=min(validation.start + WARM_UP_BARS, validation.stop))
    small = replace(experiment, config=config, splits={**experiment.splits, "validation": short})
    hooks = Hooks(
        lambda weights: score_on_validation(small, weights), clearly_better, interrupted=interrupted
    )
    if train_model(config, TradingVecEnv(small.batch()), 1, hooks).interrupted:
        raise KeyboardInterrupt


@dataclass
class Keeper:
    """Writes the checkpoints of one run; a full disk costs a warning, not the training."""

    home: Path
    name: str
    raw: Raw
    choices: dict[str, str]
    experiment: Experiment
    tracker: Tracker
    console: WorkbenchConsole
    told: bool = False

    @property
    def path(self) -> Path:
        """Where the checkpoints of this run are."""
        return checkpoint_folder(self.home) / f"{self.name}{SUFFIX}"

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; the first one that cannot be written is told."""
        self.tracker.flush()  # the record is never behind a checkpoint
        owner: Owner = {
            "name": self.name,
            "run_id": self.tracker.run_id,
            "fingerprint": self.experiment.bars.fingerprint,
            "plugins": plugins.digests(),
            "config": plain(self.raw),
            "choices": self.choices,
        }
        try:
            write_checkpoint(self.path, checkpoint, owner)
            self.told = False
        except OSError as error:
            if not self.told:
                self.console.show(
                    f"checkpoint not written ({error.strerror}), training goes on; free space in "
                    f"{self.path.parent}"
                )
            self.told = True

    def what_happens(self) -> str:
        """Say what the first Ctrl-C during learning brings about."""
        kept = "with the last checkpoint" if self.path.exists() else "with nothing kept"
        return (
            "Ctrl-C: after this rollout the model so far is scored and written; Ctrl-C again ends "
            f"at once, {kept}"
        )

    @contextmanager
    def last_words(self) -> Iterator[None]:
        """Let a Ctrl-C that insists, or comes before learning, say what is kept."""
        try:
            yield
        except KeyboardInterrupt:
            text = "nothing is kept, the same command begins anew"
            if self.path.exists():
                text = f"go on from its checkpoint:\n  {command_line([f'resume={self.name}'])}"
            raise KeyboardInterrupt(f"interrupted, no model is written; {text}") from None

    def write_model(
        self,
        folder: Path,
        tensors: Mapping[str, torch.Tensor],
        metadata: Metadata,
        overwrite: bool,
    ) -> ArtifactPaths:
        """Write the artefact; where it cannot be written, say that the run is not lost.

        A run that has diverged is: its checkpoint goes, since it would only diverge again.
        """
        try:
            return save_artifact(folder, self.name, tensors, metadata, overwrite)
        except DivergedError:
            self.path.unlink(missing_ok=True)
            raise
        except ArtifactError as error:
            if not self.path.exists():
                raise
            raise ArtifactError(f"{error}; then go on with resume={self.name}") from None


@dataclass(frozen=True)
class Resumed:
    """The run that is resumed."""

    name: str
    run_id: str | None
    fingerprint: str
    checkpoint: Checkpoint

    @classmethod
    def find(cls, home: Path, resume: str | None) -> "Resumed | None":
        """Read the checkpoint that `resume` names, if any."""
        if resume is None:
            return None
        path = find_checkpoint(checkpoint_folder(home), resume)
        checkpoint, header = read_checkpoint(path), read_header(path)
        return cls(header["name"], header["run_id"], header["fingerprint"], checkpoint)

    def owns_artifact(self, folder: Path, raw: Raw) -> bool:
        """Tell whether what stands under the run's name is its own, from just before a kill."""
        paths = artifact_paths(folder, self.name)
        if not paths.metadata.exists():
            return True  # half a pair, if anything
        try:
            metadata = load_metadata(folder, self.name)
        except ArtifactError:
            return False
        kept = {key: value for key, value in plain(raw).items() if key not in CHANGES_ON_RESUME}
        stored = {k: v for k, v in metadata.config.items() if k not in CHANGES_ON_RESUME}
        return stored == kept and metadata.data.fingerprint == self.fingerprint

    def check(self, experiment: Experiment) -> None:
        """Refuse other bars than those that the run was started with."""
        if experiment.bars.fingerprint != self.fingerprint:
            raise CheckpointError(
                f"resume={self.name}: the bars are not those that the run was started with; "
                "give it the same data"
            )


def check_no_checkpoint(home: Path, name: str, overwrite: bool) -> None:
    """Refuse to train under the name of a run that was killed and can be resumed.

    Raises:
        CheckpointError: Its checkpoint would be overwritten.
    """
    path = checkpoint_folder(home) / f"{name}{SUFFIX}"
    if path.exists() and not overwrite:
        raise CheckpointError(
            f"output={name}: {path} is the checkpoint of a run that has not ended; go on with it "
            f"(resume={name}), choose another output or set overwrite=true"
        )


def checkpoint_folder(home: Path) -> Path:
    """Return where runs keep their checkpoints."""
    return home / "mlruns" / "checkpoints"


class _Latest:
    """Turn the standing after each rollout into what the console shows."""

    def __init__(self) -> None:
        self._validation: Validation | None = None
        self._evaluations = 0

    def state(self, standing: Standing) -> ProgressState:
        if standing.validation is not None:
            self._validation = standing.validation
            self._evaluations += 1
        seen = self._validation.metrics if self._validation else {}
        budget, reward = standing.budget, standing.episode_reward
        masks = {k: v for k, v in standing.metrics.items() if k.startswith("mask/")}
        return ProgressState(
            elapsed_seconds=budget.elapsed_seconds,
            budget_seconds=budget.seconds,
            timesteps=budget.timesteps,
            total_timesteps=budget.max_timesteps,
            planned_timesteps=budget.planned_timesteps,
            episodes=budget.episodes,
            steps_per_second=standing.steps_per_second,
            passes=standing.passes,
            episode_reward=None if reward != reward else reward,
            validation_sharpe=seen.get("sharpe_annual"),
            validation_max_drawdown_frac=seen.get("max_drawdown_frac"),
            blocked={k.removeprefix("mask/"): v for k, v in masks.items() if k != "mask/any"},
            total_episodes=budget.max_episodes,
            evaluations=self._evaluations,
        )
