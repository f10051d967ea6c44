"""The tasks, one straight-line function each: train, evaluate, backtest."""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numba
import torch

from ppo_workbench.config import (
    Activation,
    BudgetConfig,
    CheckpointConfig,
    Config,
    ConfigError,
    Interrupted,
    ModelType,
    Task,
)
from ppo_workbench.delivery.artifact import (
    ArtifactPaths,
    check_free,
    load_artifact,
    save_artifact,
)
from ppo_workbench.delivery.describe import describe_model, plain, utc
from ppo_workbench.delivery.inference import PolicyWeights
from ppo_workbench.delivery.metadata import Metadata, Scorecards, Training
from ppo_workbench.jit import CACHE_ENABLED
from ppo_workbench.learning.budget import Budget
from ppo_workbench.learning.checkpoints import (
    SUFFIX,
    Checkpoint,
    CheckpointError,
    find_checkpoint,
    read_checkpoint,
    read_header,
    write_checkpoint,
)
from ppo_workbench.learning.models import policy_weights
from ppo_workbench.learning.progress import ProgressState, ResultRow, WorkbenchConsole
from ppo_workbench.learning.training import (
    Hooks,
    Standing,
    TrainingResult,
    Validation,
    interruptible,
    train_model,
)
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.records.ledger import open_test
from ppo_workbench.records.redaction import Redactor
from ppo_workbench.records.study_record import analyse_study
from ppo_workbench.records.tracking import RunStatus, Tracker, open_tracker
from ppo_workbench.scoring.backtest import NETWORK, Policy
from ppo_workbench.scoring.backtest import backtest as run_backtest
from ppo_workbench.scoring.baselines import tuned_threshold, yardsticks
from ppo_workbench.scoring.metrics import Scorecard, scorecard
from ppo_workbench.scoring.plots import write_plots
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import (
    Experiment,
    prepare,
    prepare_with_test,
    split_bars,
)
from ppo_workbench.trading.kernel import Scaler, TradingMarket
from ppo_workbench.trials import run_trial

MODEL_NAMES = {ModelType.maskable_ppo: "MaskablePPO", ModelType.ppo: "PPO"}
FOLDERS = {ModelType.maskable_ppo: "trained_models", ModelType.ppo: "baselines"}
SCALER_MEANS, SCALER_STDS = "scaler.means", "scaler.stds"
POLICY_PREFIX = "policy."

Scores = dict[str, dict[str, Scorecard]]


@dataclass(frozen=True)
class Outcome:
    """What a training leaves.

    Attributes:
        score: Objective: the selected checkpoint's validation lower bound.
        paths: The artefact.
        metadata: Its metadata.
        scorecards: policy -> split -> Scorecard.
        validation_trace: What the selected checkpoint did on the validation split.
        run_id: MLflow run, if recorded.
        interrupted: The user ended training early.
    """

    score: float
    paths: ArtifactPaths
    metadata: Metadata
    scorecards: Scores
    validation_trace: Trace
    run_id: str | None
    interrupted: bool


def home_folder() -> Path:
    """Return the folder that everything is written under."""
    return Path(os.environ.get("PPO_WORKBENCH_HOME", ".")).absolute()


def run(config: Config, raw: Mapping[str, Any], choices: Mapping[str, str]) -> float:
    """Carry out `config.task` for the command line and return its objective.

    Args:
        config: The checked configuration.
        raw: The same with secrets unresolved, for the record.
        choices: Option chosen in each group of conf/, for the screen and the record.

    Raises:
        Interrupted: The user ended training; the model so far was kept.
    """
    if config.trial.study is not None:
        return run_trial(config, raw, home_folder())
    if config.task is Task.analyse:
        return analyse(config)
    if config.task is Task.evaluate:
        return evaluate(config).sharpe_annual
    outcome = train(config, raw, choices)
    if outcome.interrupted:
        raise Interrupted(outcome.score)
    return outcome.score


def train(
    config: Config,
    raw: Mapping[str, Any] | None = None,
    choices: Mapping[str, str] | None = None,
    console: WorkbenchConsole | None = None,
) -> Outcome:
    """Train, score on train and validation, record, and write the artefact.

    Args:
        config: The experiment.
        raw: The configuration with secrets unresolved; by default `config` with masked URLs.
        choices: Options by group, recorded as tags.
        console: Where to print.

    Raises:
        WorkbenchError: Bad bars, an output name that is taken, or an unusable tracking store;
            nothing was written then.
    """
    home, console = home_folder(), console or WorkbenchConsole()
    resumed = _Resumed.find(home, config.resume)
    raw = _without_secrets(raw or plain(asdict(config)), config)
    name = resumed.name if resumed else config.output or default_name(config)
    folder = home / FOLDERS[config.model.type]
    check_free(folder, name, config.overwrite)
    _check_result_path(config.result_json)
    experiment = prepare(config, *split_bars(config))
    if resumed:
        resumed.check(experiment)
    env = TradingVecEnv(experiment.batch())
    console.show_banner(config.model.type.value)
    tags = {"model_type": config.model.type.value, "task": "train", **dict(choices or {})}
    run_id = resumed.run_id if resumed else None
    with open_tracker(config.tracking, home, name, raw, tags, run_id) as tracker:
        console.show_choices(_choices(experiment, name, folder, home, tracker, choices or {}))
        keeper = _Keeper(home, name, raw, dict(choices or {}), experiment, tracker, console)
        result = _learn(experiment, env, console, tracker, keeper, resumed)
        with interruptible():  # a late Ctrl-C must not cost the model that training left
            scores, traces = _score(experiment, result)
            train_bars = len(experiment.splits["train"])
            cards = {split: plain(asdict(card)) for split, card in _own(config, scores).items()}
            training = _training(config, result, train_bars)
            metadata = describe_model(
                experiment, training, Scorecards(**cards), raw, tracker.run_id
            )
            tensors = artifact_tensors(experiment, result.tensors)
            paths = save_artifact(folder, name, tensors, metadata, config.overwrite)
        console.show_results(_rows(scores))
        _say_end(console, result, paths, tracker)
        _record(tracker, config, console, scores, traces, paths, result)
        if result.interrupted:
            tracker.end_as(RunStatus.killed)
        else:
            keeper.path.unlink(missing_ok=True)
    own = _own(config, scores)["validation"]
    outcome = Outcome(
        score=lower_bound(own),
        paths=paths,
        metadata=metadata,
        scorecards=scores,
        validation_trace=traces[MODEL_NAMES[config.model.type]],
        run_id=tracker.run_id,
        interrupted=result.interrupted,
    )
    _write_result(config.result_json, _result(outcome))
    return outcome


def backtest(config: Config, artifact: str, split: str = "validation") -> Trace:
    """Run a stored model over one split of the configured bars and return what it did.

    Opening the test split is recorded in the ledger first.

    Args:
        config: Gives bars, features, costs and rules.
        artifact: Name in trained_models/ or baselines/, or a path without its ending.
        split: "train", "validation" or "test".

    Raises:
        ConfigError: The split's name is unknown, or the model observes something else.
        ArtifactError: The artefact is missing or damaged.
    """
    if split not in ("train", "validation", "test"):
        raise ConfigError(f"split={split!r}: must be train, validation or test")
    folder, name = find_artifact(artifact)
    stored = load_artifact(folder, name)
    if split == "test":
        experiment = open_with_test(config, f"backtest of {name}")
    else:
        experiment = prepare(config, *split_bars(config))
    policy = stored_policy(stored.metadata, stored.tensors, experiment)
    market = _rescaled(experiment, stored.tensors)
    return run_backtest(policy, experiment.bars, market, experiment.splits[split], config)


def open_with_test(config: Config, why: str) -> Experiment:
    """Open the test split: record the opening in the ledger, then lay out the experiment.

    The only way to the test split (DESIGN.md, rule 4).

    Args:
        config: The experiment.
        why: The reason, for the ledger.

    Raises:
        LedgerError: The opening cannot be recorded, so nothing is opened.
    """
    bars, splits = split_bars(config)
    opened = splits["test"]
    span = [utc(int(bars.start_ns[i])).isoformat() for i in (opened.start, opened.stop - 1)]
    open_test(home_folder(), bars.instrument, span[0], span[1], bars.fingerprint, why)
    return prepare_with_test(config, bars, splits)


def evaluate(config: Config, console: WorkbenchConsole | None = None) -> Scorecard:
    """Score the model `config.artifact` on the validation split of the configured bars."""
    console = console or WorkbenchConsole()
    if config.artifact is None:
        raise ConfigError("artifact: a value is needed, write artifact=NAME")
    _check_result_path(config.result_json)
    card = scorecard(backtest(config, config.artifact))
    console.show(f"{config.artifact} on the validation split of {config.data.source}")
    console.show_choices(card.describe())
    scorecards = {config.artifact: {"validation": card.to_dict()}}
    _write_result(config.result_json, {"score": lower_bound(card), "scorecards": scorecards})
    return card


def analyse(config: Config, console: WorkbenchConsole | None = None) -> float:
    """Write the analysis of the study `config.study` and return its best value."""
    console = console or WorkbenchConsole()
    if config.study is None:
        raise ConfigError("study: a value is needed, write study=NAME (a folder in sweeps/)")
    home = home_folder()
    found = analyse_study(config.trial.storage, home, config.study, config.objective.metrics)
    console.show(f"analysis: {home / 'sweeps' / config.study / 'analysis.html'}", wrap=False)
    return float("nan") if found.best_value is None else found.best_value


def default_name(config: Config) -> str:
    """Return model type, UTC time and a short id."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{config.model.type.value}_{stamp}_{secrets.token_hex(2)}"


def find_artifact(artifact: str) -> tuple[Path, str]:
    """Return folder and name of an artefact given by name or by path.

    Raises:
        ConfigError: It is in neither trained_models/ nor baselines/.
    """
    path = Path(artifact)
    if path.parent != Path():
        return path.parent, path.name.removesuffix(".pth")
    for folder in FOLDERS.values():
        if (home_folder() / folder / f"{artifact}.pth").is_file():
            return home_folder() / folder, artifact
    places = " or ".join(f"{folder}/" for folder in FOLDERS.values())
    raise ConfigError(f"artifact={artifact}: no such model in {places} of {home_folder()}")


def artifact_tensors(
    experiment: Experiment, state: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Name the policy's tensors and add the scaler."""
    scaler = experiment.market.scaler
    return {f"{POLICY_PREFIX}{key}": value for key, value in state.items()} | {
        SCALER_MEANS: torch.from_numpy(scaler.means.copy()),
        SCALER_STDS: torch.from_numpy(scaler.stds.copy()),
    }


def stored_policy(
    metadata: Metadata, tensors: dict[str, torch.Tensor], experiment: Experiment
) -> Policy:
    """Turn a loaded artefact into a policy for `experiment`, if they fit together.

    Raises:
        ConfigError: Actions, ladder or observed features differ.
    """
    space, market = experiment.market.space, experiment.market
    pairs = {
        "action names": (metadata.action_names, list(space.names)),
        "exposure levels": (metadata.exposure_levels, [float(x) for x in space.levels]),
        "market features": (metadata.observation.market_names, list(market.feature_names)),
        "feature settings": (
            metadata.feature_specification,
            plain(asdict(experiment.config.features)),
        ),
    }
    for what, (stored, here) in pairs.items():
        if stored != here:
            raise ConfigError(
                f"artifact={metadata.name}: its {what} are {stored}, the configuration has {here}; "
                "compose the configuration that it was trained with"
            )
    activation = Activation(metadata.architecture.activation)
    weights = policy_weights(tensors, activation, POLICY_PREFIX)
    return _policy(metadata.model_type, weights)


def _rescaled(experiment: Experiment, tensors: Mapping[str, torch.Tensor]) -> TradingMarket:
    """Return the market as a stored model saw it: scaled as in its own training."""
    means, stds = (tensors[name].numpy() for name in (SCALER_MEANS, SCALER_STDS))
    scaler = Scaler(means, stds, experiment.market.scaler.clip)
    features = scaler.transform_market(experiment.table.features)
    return replace(experiment.market, features=features, scaler=scaler)


def lower_bound(card: Scorecard) -> float:
    """Return the objective: annual Sharpe less one standard error (Lo 2002)."""
    return card.sharpe_annual - card.sharpe_standard_error


def _policy(model_type: ModelType, weights: PolicyWeights) -> Policy:
    use_mask = model_type is ModelType.maskable_ppo
    return Policy(MODEL_NAMES[model_type], NETWORK, weights=weights, use_mask=use_mask)


def _backtest(experiment: Experiment, policy: Policy, split: str) -> Trace:
    return run_backtest(
        policy,
        experiment.bars,
        experiment.market,
        experiment.splits[split],
        experiment.config,
    )


def _learn(
    experiment: Experiment,
    env: TradingVecEnv,
    console: WorkbenchConsole,
    tracker: Tracker,
    keeper: "_Keeper",
    resumed: "_Resumed | None",
) -> TrainingResult:
    """Train with live progress on the console and metrics in the record."""
    config, latest = experiment.config, _Latest()
    progress = console.training_progress()

    def look(weights: PolicyWeights) -> Validation:
        trace = _backtest(experiment, _policy(config.model.type, weights), "validation")
        card = scorecard(trace)
        return Validation(lower_bound(card), card.to_dict())

    hooks = Hooks(
        evaluate=look,
        record=tracker.log_metrics,
        progress=lambda standing: progress.update(latest.state(standing)),
        save=keeper.save,
    )
    train_bars = len(experiment.splits["train"])
    if not _is_compiled():
        console.show("compiling for about a minute, on the first run only ...")
    _warm_up(experiment, look)
    progress.start(Budget(config.budget).describe())
    try:
        checkpoint = resumed.checkpoint if resumed else None
        return train_model(config, env, train_bars, hooks, checkpoint)
    finally:
        progress.stop()


def _is_compiled() -> bool:
    """Say whether an earlier run has left its machine code in the cache."""
    if not CACHE_ENABLED:
        return False
    return any(Path(numba.config.CACHE_DIR).rglob("backtest._run*.nbc"))  # type: ignore[attr-defined]


def _warm_up(experiment: Experiment, look: Callable[[PolicyWeights], Validation]) -> None:
    """Compile all kernels before the clock starts: train once on as little as can be.

    Else the first run of a budget of minutes would spend it on compiling, and calibrate its
    schedules by that.

    Raises:
        KeyboardInterrupt: The user does not want to wait; there is no model to keep yet.
    """
    config = experiment.config
    model = replace(config.model, n_envs=2, n_steps=2, batch_size=2, n_epochs=1)
    budget = BudgetConfig(timesteps=4, evaluations=1)
    small = replace(config, model=model, budget=budget, checkpoint=CheckpointConfig(None))
    env = TradingVecEnv(replace(experiment, config=small).batch())
    hooks = Hooks(look, lambda metrics, timesteps: None, lambda standing: None)
    if train_model(small, env, 1, hooks).interrupted:
        raise KeyboardInterrupt


@dataclass(frozen=True)
class _Keeper:
    """Writes the checkpoints of one run; a full disk costs a warning, not the training."""

    home: Path
    name: str
    raw: Mapping[str, Any]
    choices: dict[str, str]
    experiment: Experiment
    tracker: Tracker
    console: WorkbenchConsole

    @property
    def path(self) -> Path:
        return checkpoint_folder(self.home) / f"{self.name}{SUFFIX}"

    def save(self, checkpoint: Checkpoint) -> None:
        self.tracker.flush()  # the record is never behind a checkpoint
        header = {
            "name": self.name,
            "run_id": self.tracker.run_id,
            "fingerprint": self.experiment.bars.fingerprint,
            "config": plain(self.raw),
            "choices": self.choices,
        }
        try:
            write_checkpoint(self.path, checkpoint, header)
        except OSError as error:
            self.console.show(
                f"checkpoint not written ({error.strerror}), training goes on; free space in "
                f"{self.path.parent}"
            )


@dataclass(frozen=True)
class _Resumed:
    """The run that is resumed."""

    name: str
    run_id: str | None
    fingerprint: str
    checkpoint: Checkpoint

    @classmethod
    def find(cls, home: Path, resume: str | None) -> "_Resumed | None":
        if resume is None:
            return None
        path = find_checkpoint(checkpoint_folder(home), resume)
        header = read_header(path)
        name, run_id, fingerprint = (header.get(k) for k in ("name", "run_id", "fingerprint"))
        return cls(str(name), run_id, str(fingerprint), read_checkpoint(path))

    def check(self, experiment: Experiment) -> None:
        if experiment.bars.fingerprint != self.fingerprint:
            raise CheckpointError(
                f"resume={self.name}: the bars are not those that the run was started with; "
                "give it the same data"
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
            total_timesteps=budget.planned_timesteps or budget.max_timesteps,
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


def _score(experiment: Experiment, result: TrainingResult) -> tuple[Scores, dict[str, Trace]]:
    """Score the selected and the last checkpoint and the yardsticks on both open splits."""
    config = experiment.config
    own = MODEL_NAMES[config.model.type]
    policies = [_policy(config.model.type, _weights(config, result.tensors))]
    if result.selected_timesteps != result.timesteps:
        last = _policy(config.model.type, _weights(config, result.last_tensors))
        policies.append(Policy(f"{own}, last", NETWORK, last.weights, last.use_mask))
    threshold = tuned_threshold(experiment)
    policies += [] if threshold is None else [threshold]
    policies += yardsticks(len(experiment.bars), config.seed)
    scores: Scores = {}
    traces = {}
    for policy in policies:
        scores[policy.name] = {}
        for split in ("train", "validation"):
            trace = _backtest(experiment, policy, split)
            scores[policy.name][split] = scorecard(trace)
        traces[policy.name] = trace
    return scores, traces


def _weights(config: Config, tensors: dict[str, torch.Tensor]) -> PolicyWeights:
    return policy_weights(tensors, config.model.activation)


def _own(config: Config, scores: Scores) -> dict[str, Scorecard]:
    return scores[MODEL_NAMES[config.model.type]]


def _training(config: Config, result: TrainingResult, train_bars: int) -> Training:
    return Training(
        timesteps=result.timesteps,
        episodes=result.episodes,
        minutes=result.minutes,
        passes=result.timesteps / train_bars,
        select=config.select,
        selected_timesteps=result.selected_timesteps,
    )


def _rows(scores: Scores) -> list[ResultRow]:
    return [
        ResultRow(
            policy=name,
            split=split,
            sharpe=card.sharpe_annual,
            sharpe_low=card.sharpe_low_95,
            sharpe_high=card.sharpe_high_95,
            max_drawdown_frac=card.max_drawdown_frac,
            win_rate_frac=card.win_rate_frac,
            trades=card.n_trades,
            exposure=card.exposure_mean_abs,
            violations=sum(card.violations.values()),
        )
        for name, cards in scores.items()
        for split, card in cards.items()
    ]


def _choices(
    experiment: Experiment,
    name: str,
    folder: Path,
    home: Path,
    tracker: Tracker,
    choices: Mapping[str, str],
) -> list[tuple[str, str]]:
    """Say what was resolved and where files go."""
    config, bars = experiment.config, experiment.bars
    spans = [
        f"{split} {utc(int(bars.start_ns[s.start])):%Y-%m-%d} .. "
        f"{utc(int(bars.start_ns[s.stop - 1])):%Y-%m-%d}"
        for split, s in experiment.splits.items()
    ]
    space = experiment.market.space
    model = config.model
    groups = " ".join(f"{group}={option}" for group, option in choices.items())
    return [
        ("experiment", groups or "from Python"),
        ("bars", f"{bars.instrument}, {bars.bar_seconds} s, {', '.join(spans)}"),
        *(("  note", note) for note in bars.notes),
        ("observation", ", ".join(experiment.market.feature_names) + " + account"),
        ("actions", f"{', '.join(space.names)} on {[float(x) for x in space.levels]}"),
        (
            "learning",
            f"{model.n_envs} environments x {model.n_steps} steps, batch {model.batch_size}, "
            f"{model.n_epochs} epochs, learning_rate {model.learning_rate:g}, "
            f"ent_coef {model.ent_coef:g}, gamma {model.gamma:g}, seed {config.seed}",
        ),
        ("home", str(home)),
        ("model file", f"{folder.name}/{name}.pth"),
        ("record", tracker.destination + (f", run {tracker.run_id}" if tracker.run_id else "")),
    ]


def _say_end(
    console: WorkbenchConsole, result: TrainingResult, paths: ArtifactPaths, tracker: Tracker
) -> None:
    ended = "interrupted, the model so far is kept" if result.interrupted else "done"
    console.show(
        f"{ended}: {result.timesteps:,} timesteps, {result.episodes:,} episodes, "
        f"{result.minutes:.1f} minutes, {result.passes:.1f} passes over the training bars; "
        f"checkpoint of timestep {result.selected_timesteps:,}"
    )
    console.show(f"model: {paths.pth}", wrap=False)
    if tracker.run_id:
        console.show(f"record: MLflow run {tracker.run_id} (make ui)", wrap=False)


def _record(
    tracker: Tracker,
    config: Config,
    console: WorkbenchConsole,
    scores: Scores,
    traces: dict[str, Trace],
    paths: ArtifactPaths,
    result: TrainingResult,
) -> None:
    """Record scorecards, plots, console log and artefact."""
    final: dict[str, float] = {}
    for split, card in _own(config, scores).items():
        final |= {f"final_{split}/{key}": value for key, value in card.to_dict().items()}
    for name, cards in scores.items():
        key = name.split(" (")[0].replace(" ", "_").replace(",", "")
        final[f"compare_validation/{key}/sharpe_annual"] = cards["validation"].sharpe_annual
        final[f"compare_validation/{key}/max_drawdown_frac"] = cards["validation"].max_drawdown_frac
    tracker.log_metrics(final, result.timesteps)
    tracker.set_tags(
        {
            "status": "candidate",
            "selected_timesteps": str(result.selected_timesteps),
            "planned_timesteps": str(result.planned_timesteps),
            "interrupted": str(result.interrupted).lower(),
        }
    )
    tracker.log_artifact(paths.pth, "model")
    tracker.log_artifact(paths.metadata, "model")
    if config.tracking.enabled and config.tracking.plots:
        own = MODEL_NAMES[config.model.type]
        with TemporaryDirectory() as folder:
            write_plots(traces[own], Path(folder), f"{own}, validation")
            tracker.log_artifact(Path(folder), "plots")
    tracker.log_text(console.log_text, "console.log")


def _without_secrets(raw: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Copy the configuration for the record, passwords and tokens of URIs masked."""
    redact = Redactor(config.tracking.uri or "", os.environ.get("MLFLOW_TRACKING_URI", ""))

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list):
            return [clean(item) for item in value]
        return redact(value) if isinstance(value, str) else value

    return {key: clean(value) for key, value in raw.items()}


def _check_result_path(path: str | None) -> None:
    if path is None:
        return
    if not Path(path).absolute().parent.is_dir():
        raise ConfigError(f"result_json={path}: its folder does not exist; create it first")
    if Path(path).is_dir():
        raise ConfigError(f"result_json={path}: is a folder; name a file in it")


def _result(outcome: Outcome) -> dict[str, Any]:
    return {
        "score": outcome.score,
        "model": str(outcome.paths.pth),
        "metadata": str(outcome.paths.metadata),
        "mlflow_run_id": outcome.run_id,
        "interrupted": outcome.interrupted,
        "timesteps": outcome.metadata.training.timesteps,
        "scorecards": {
            name: {split: card.to_dict() for split, card in cards.items()}
            for name, cards in outcome.scorecards.items()
        },
    }


def _write_result(path: str | None, document: Mapping[str, Any]) -> None:
    """Write the outcome for scripts, whole or not at all."""
    if path is None:
        return
    target = Path(path)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_text(json.dumps(document, indent=2), encoding="utf-8")
    temporary.replace(target)
