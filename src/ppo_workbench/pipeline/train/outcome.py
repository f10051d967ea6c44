"""What a training leaves, on the screen, in the record and in a file for scripts."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ppo_workbench.config import Config, Raw, RewardConfig, section_of
from ppo_workbench.delivery.artifact import ArtifactPaths
from ppo_workbench.delivery.describe import describe_data, plain, utc
from ppo_workbench.delivery.metadata import Metadata, Training
from ppo_workbench.learning.progress import WorkbenchConsole, command_line
from ppo_workbench.learning.training import TrainingResult
from ppo_workbench.market.horizons import describe_horizons
from ppo_workbench.pipeline.models.stored import MODEL_NAMES
from ppo_workbench.pipeline.train.scores import Scores, effective_evaluations, own_scores
from ppo_workbench.records.run_notes import NOTE, headline_metrics, run_note
from ppo_workbench.records.tracking import Tracker
from ppo_workbench.reports.plots import write_plots
from ppo_workbench.scoring.documents import BarsPart
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import Experiment

NOTHING_HELD = 0.005  # mean exposure, fraction of equity


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


def describe_training(config: Config, result: TrainingResult) -> Training:
    """Describe what the training took, for the metadata."""
    return Training(
        timesteps=result.timesteps,
        episodes=result.episodes,
        minutes=result.minutes,
        passes=result.passes,
        select=config.select,
        selected_timesteps=result.selected_timesteps,
        plan=result.plan,
        effective_evaluations=effective_evaluations(config, result),
    )


def resolved_choices(
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
        ("horizons", describe_horizons(config, bars)),
        ("observation", ", ".join(experiment.market.feature_names) + " + account"),
        ("actions", f"{', '.join(space.names)} on {[float(x) for x in space.levels]}"),
        ("reward", reward_words(config.reward)),
        (
            "learning",
            f"{model.n_envs} environments x {model.n_steps} steps, batch {model.batch_size}, "
            f"{model.n_epochs} epochs, learning_rate {model.learning_rate:g}, "
            f"ent_coef {model.ent_coef:g}, seed {config.seed}",
        ),
        ("home", str(home)),
        ("model file", f"{folder.name}/{name}.pth"),
        ("record", tracker.destination),
    ]


def reward_words(reward: RewardConfig) -> str:
    """Say what rewards are counted in, and what holding has to bring to be worth it."""
    unit = reward.bar_volatility_frac or 0.0
    year = reward.annual_volatility_frac or 0.0
    return (
        f"in bar volatilities of {unit * 1e4:.3g} bp ({year:.1%} a year); holding pays above an "
        f"annual Sharpe ratio of {reward.variance:g} (reward.variance)"
    )


def say_if_nothing_trades(console: WorkbenchConsole, config: Config, scores: Scores) -> None:
    """Say so when accounts were ruined, the rules left nothing to trade, or the agent does not."""
    ruined = [name for name, cards in scores.items() if any(card.ruined for card in cards.values())]
    if ruined:
        console.show(
            f"warning: ruined, and nothing left to trade with: {', '.join(ruined)}; the figures "
            "are of the few sessions before (look at costs=, market.tick, the rules under risk.)"
        )
    card, own = scores["random-legal"]["train"], own_scores(config, scores)["validation"]
    if card.n_fills == 0:
        rule, share = max(card.blocked_share.items(), key=lambda item: item[1])
        console.show(
            f"warning: no policy could trade on the training bars; the rule {rule} blocked "
            f"{share:.0%} of the decisions (docs/rules.md names its settings under risk.)"
        )
    elif own.exposure_mean_abs < NOTHING_HELD:
        console.show(
            f"the agent trades nothing: on validation it held {own.exposure_mean_abs:.1%} of its "
            f"equity on average ({own.n_fills:,} fills), so its figures are those of cash; what it "
            "could see was not worth the costs (costs=, reward.variance, features.names)"
        )


def say_end(
    console: WorkbenchConsole,
    config: Config,
    result: TrainingResult,
    scores: Scores,
    paths: ArtifactPaths,
    tracker: Tracker,
) -> None:
    """Say how training ended, which checkpoint is the model, and where things are."""
    ended = "interrupted, the model so far is kept" if result.interrupted else "done"
    console.show(
        f"{ended}: {result.timesteps:,} timesteps, {result.episodes:,} episodes, "
        f"{result.minutes:.1f} minutes, {result.passes:.1f} passes over the training bars"
    )
    if result.selected_timesteps != result.timesteps:
        own = MODEL_NAMES[config.model.type]
        sharpe, last = (scores[name]["validation"].sharpe_annual for name in (own, f"{own}, last"))
        console.show(
            f"checkpoint: select=best took the one of timestep {result.selected_timesteps:,}, not "
            f"the last of {result.timesteps:,}: Sharpe {sharpe:+.2f} against {last:+.2f} on "
            "validation"
        )
    console.show(f"model: {paths.pth}", wrap=False)
    if tracker.run_id:
        console.show(f"record: MLflow run {tracker.run_id} in {tracker.destination}", wrap=False)


def what_next(name: str, store: str | None, goes_on: bool) -> list[tuple[str, str]]:
    """Return what can be done with a model, as (purpose, whole command).

    Args:
        name: Of the model.
        store: Where MLflow recorded its run, None if nowhere.
        goes_on: There is a checkpoint to train on from.
    """
    found = [("train on from where it stopped", command_line([f"resume={name}"]))] * goes_on
    found.append(("one page to look at", command_line(["task=report", f"run={name}"])))
    found.append(("replay it bar by bar", command_line(["task=paper", f"artifact={name}"])))
    if store is not None and store.startswith("sqlite:"):
        found.append(("its curves", shlex.join(["mlflow", "ui", "--backend-store-uri", store])))
    return found


def record_outcome(
    tracker: Tracker,
    config: Config,
    console: WorkbenchConsole,
    scores: Scores,
    traces: dict[str, Trace],
    paths: ArtifactPaths,
    result: TrainingResult,
    data: BarsPart,
) -> None:
    """Record bars, scorecards, plots, console log and artefact."""
    final: dict[str, float] = {}
    for split, card in own_scores(config, scores).items():
        final |= {f"final_{split}/{key}": value for key, value in card.to_dict().items()}
    for name, cards in scores.items():
        key = name.split(" (")[0].replace(" ", "_").replace(",", "")
        final[f"compare_validation/{key}/sharpe_annual"] = cards["validation"].sharpe_annual
        final[f"compare_validation/{key}/max_drawdown_frac"] = cards["validation"].max_drawdown_frac
    flat = {split: card.to_dict() for split, card in own_scores(config, scores).items()}
    final |= headline_metrics([flat["validation"]])
    tracker.log_metrics(final, result.timesteps)
    tracker.log_bars(data)
    command = f"python -m ppo_workbench task=report run={paths.pth.stem}"
    report = f"Report: `{command}` writes `reports/{paths.pth.stem}/report.html`"
    tracker.set_tags(
        {
            NOTE: run_note(flat, [report, f"Model: `{paths.pth.parent.name}/{paths.pth.name}`"]),
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
        try:
            with TemporaryDirectory() as folder:
                write_plots(traces[own], Path(folder), f"{own}, validation")
                tracker.log_artifact(Path(folder), "plots")
        except OSError as error:
            console.show(f"plots not written ({error.strerror}), the model is kept")
    tracker.log_text(console.log_text, "console.log")


def bars_of(experiment: Experiment, raw: Raw) -> BarsPart:
    """Return which bars an experiment is on, for its record; a path stays unresolved."""
    told: BarsPart = plain(describe_data(experiment).model_dump(mode="json"))
    return {**told, "path": plain(section_of(raw, "data").get("path"))}


def outcome_document(outcome: Outcome) -> dict[str, object]:
    """Return the outcome as JSON values."""
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
