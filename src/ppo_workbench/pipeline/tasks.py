"""The tasks by name, and those that need no room of their own: train, evaluate, analyse."""

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import NamedTuple

from ppo_workbench.config import (
    Config,
    ConfigError,
    Interrupted,
    Task,
)
from ppo_workbench.config.secrets import masked
from ppo_workbench.delivery.artifact import check_free
from ppo_workbench.delivery.describe import describe_model, plain
from ppo_workbench.delivery.metadata import Scorecards
from ppo_workbench.learning.models import check_device
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.learning.training import (
    interruptible,
)
from ppo_workbench.learning.vec_env import TradingVecEnv
from ppo_workbench.market.horizons import recorded_horizons
from ppo_workbench.pipeline.compare.cell import run_cell
from ppo_workbench.pipeline.compare.running import Jobs, compare
from ppo_workbench.pipeline.deliver_records import deliver_records
from ppo_workbench.pipeline.given import Given
from ppo_workbench.pipeline.models.deciding import decide
from ppo_workbench.pipeline.models.evaluation import evaluate_artifact
from ppo_workbench.pipeline.models.exporting import export
from ppo_workbench.pipeline.models.feed import paper_feed
from ppo_workbench.pipeline.models.paper import paper
from ppo_workbench.pipeline.models.stored import (
    FOLDERS,
    MODEL_NAMES,
    artifact_tensors,
    home_folder,
)
from ppo_workbench.pipeline.models.verifying import audit_artifact, verify
from ppo_workbench.pipeline.power import power
from ppo_workbench.pipeline.promote.running import promote, refuse, rollback
from ppo_workbench.pipeline.report import report
from ppo_workbench.pipeline.result_json import check_result_path, write_result
from ppo_workbench.pipeline.sweep.record import analyse_study
from ppo_workbench.pipeline.sweep.trial import run_trial
from ppo_workbench.pipeline.train.fitting import Keeper, Resumed, check_no_checkpoint, learn
from ppo_workbench.pipeline.train.outcome import (
    Outcome,
    bars_of,
    describe_training,
    outcome_document,
    record_outcome,
    resolved_choices,
    say_end,
    say_if_nothing_trades,
    what_next,
)
from ppo_workbench.pipeline.train.result_table import show_results
from ppo_workbench.pipeline.train.scores import lower_bound, own_scores, score_policies
from ppo_workbench.records.pending import open_tracker_beside
from ppo_workbench.records.tracking import RunStatus
from ppo_workbench.scoring.metrics import Scorecard, scorecard
from ppo_workbench.trading.experiment import prepared


def run(given: Given, jobs: Jobs | None = None) -> float:
    """Carry out a task for the command line and return its objective.

    Args:
        given: What the command line gave; `given.config` says which task.
        jobs: Runs the cells of a comparison.

    Raises:
        Interrupted: The user ended training; the model so far was kept.
        KeyboardInterrupt: The user ended something else; its text says what is left.
    """
    config = given.config
    try:
        if config.trial.study is not None:
            return run_trial(given)
        if config.compare.cell.name is not None:
            return run_cell(given)
        return TASKS[config.task].run(given, jobs)
    except KeyboardInterrupt as interrupt:
        left = f"interrupted: {TASKS[config.task].left}"
        raise KeyboardInterrupt(*interrupt.args or [left]) from None


def _compared(given: Given, jobs: Jobs | None) -> float:
    """Return the mean test Sharpe ratio of the reference arm."""
    assert jobs is not None
    try:
        document = compare(given, jobs).document
    except KeyboardInterrupt:
        raise Interrupted(float("nan")) from None  # the comparison has said what is kept
    reference = given.config.compare.reference
    return float(document["figures"][reference]["sharpe_annual"]["mean"])


def train(asked: Config | Given, console: WorkbenchConsole | None = None) -> Outcome:
    """Train, score on train and validation, record, and write the artefact.

    Args:
        asked: The experiment, or what the command line gave; a configuration alone is recorded
            with masked URLs.
        console: Where to print.

    Raises:
        WorkbenchError: Bad bars, an output name that is taken, or an unusable tracking store,
            which may be noticed when training has begun; no model was written then.
    """
    given, console = Given.of(asked), console or WorkbenchConsole()
    config, raw, choices, home = given.config, given.raw, given.choices, given.home
    check_device(config.model.device)
    resumed = Resumed.find(home, config.resume)
    name = resumed.name if resumed else config.output or default_name(config)
    folder = home / FOLDERS[config.model.type]
    overwrite = config.overwrite or (resumed is not None and resumed.owns_artifact(folder, raw))
    check_free(folder, name, overwrite)
    check_result_path(config.result_json)
    if resumed is None:
        check_no_checkpoint(home, name, config.overwrite)
    with console.waiting("reading bars, computing features"):
        experiment = prepared(config)
        config = experiment.config
        raw = recorded_horizons(raw, config)
        if resumed:
            resumed.check(experiment)
        env = TradingVecEnv(experiment.batch())
    console.show_banner(config.model.type.value)
    if resumed:
        steps = resumed.checkpoint.document["num_timesteps"]
        console.show(f"resumed: {name} goes on from timestep {steps:,}")
    tags = {"model_type": config.model.type.value, "task": "train", **choices}
    if given.overrides:
        tags["overrides"] = " ".join(masked(given.overrides))
    run_id = resumed.run_id if resumed else None
    record = open_tracker_beside(config.tracking, home, name, raw, tags, run_id)
    with record as tracker:
        console.show_choices(resolved_choices(experiment, name, folder, home, tracker, choices))
        keeper = Keeper(home, name, raw, dict(choices), experiment, tracker, console)
        with keeper.last_words():
            result = learn(experiment, env, console, tracker, keeper, resumed)
        # A late Ctrl-C must not cost the model that training left.
        late = interruptible(lambda: console.show("Ctrl-C: the model is being written already"))
        with (
            keeper.last_words(),
            late,
            console.waiting("scoring checkpoints and reference policies"),
        ):
            scores, traces = score_policies(experiment, result)
            cards = {
                split: plain(asdict(card)) for split, card in own_scores(config, scores).items()
            }
            training = describe_training(config, result)
            metadata = describe_model(
                experiment, training, Scorecards(**cards), raw, tracker.run_id
            )
            tensors = artifact_tensors(experiment, result.tensors)
            paths = keeper.write_model(folder, tensors, metadata, overwrite)
        show_results(console, scores)
        say_if_nothing_trades(console, config, scores)
        say_end(console, config, result, scores, paths, tracker)
        with console.waiting("recording"):
            data = bars_of(experiment, raw)
            record_outcome(tracker, config, console, scores, traces, paths, result, data)
        if result.interrupted:
            tracker.end_as(RunStatus.killed)
    own = own_scores(config, scores)["validation"]
    outcome = Outcome(
        score=lower_bound(own),
        paths=paths,
        metadata=metadata,
        scorecards=scores,
        validation_trace=traces[MODEL_NAMES[config.model.type]],
        run_id=tracker.run_id,
        interrupted=result.interrupted,
    )
    write_result(config.result_json, outcome_document(outcome))
    store = tracker.destination if tracker.run_id else None
    console.show_next(what_next(name, store, result.interrupted and keeper.path.exists()))
    if not result.interrupted:  # the last thing: until here a kill can be resumed from
        with suppress(OSError):
            keeper.path.unlink()
    return outcome


def evaluate(config: Config, console: WorkbenchConsole | None = None) -> Scorecard:
    """Score the model `config.artifact` on the split `config.split` of the configured bars."""
    console = console or WorkbenchConsole()
    if config.artifact is None:
        raise ConfigError("artifact: a value is needed, write artifact=NAME")
    check_result_path(config.result_json)
    with console.waiting("reading bars, replaying the model"):
        found = evaluate_artifact(config, config.artifact, config.split)
    card, split = scorecard(found.trace), config.split.value
    console.show(f"{config.artifact} on {split} of {found.experiment.bars.instrument}")
    notes = list(found.notes())
    for note in notes:
        console.show(f"note: {note}")
    console.show_choices(card.describe())
    scorecards = {config.artifact: {split: card.to_dict()}}
    write_result(
        config.result_json, {"score": lower_bound(card), "scorecards": scorecards, "notes": notes}
    )
    return card


def analyse(config: Config, console: WorkbenchConsole | None = None) -> float:
    """Write the analysis of the study `config.study` and return its best value."""
    console = console or WorkbenchConsole()
    if config.study is None:
        raise ConfigError("study: a value is needed, write study=NAME (a folder in sweeps/)")
    home = home_folder()
    with console.waiting("analysing the study"):
        found = analyse_study(config.trial.storage, home, config.study, config.objective.metrics)
    console.show(f"analysis: {home / 'sweeps' / config.study / 'analysis.html'}", wrap=False)
    return found.best.values[0] if found.best else float("nan")


def default_name(config: Config) -> str:
    """Return model type, UTC time and a short id."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{config.model.type.value}_{stamp}_{secrets.token_hex(2)}"


def _on_paper(config: Config) -> float:
    """Replay recorded bars, or with `decide.state` trade on paper for as long as bars come."""
    if config.decide.state is None:
        return paper(config).sharpe_annual
    return float(paper_feed(config))


def _trained(given: Given, _: Jobs | None) -> float:
    outcome = train(given)
    if outcome.interrupted:
        raise Interrupted(outcome.score)
    return outcome.score


def _promoted(given: Given, _: Jobs | None) -> float:
    refuse(found := promote(given))
    return float(found.document["winner"]["bound"])


def _of(scored: Callable[[Config], float]) -> "Run":
    return lambda given, _: scored(given.config)


def _without_objective(task: Callable[[Config], object]) -> "Run":
    def run_it(given: Given, _: Jobs | None) -> float:
        task(given.config)
        return 0.0

    return run_it


Run = Callable[[Given, Jobs | None], float]


class TaskRow(NamedTuple):
    """What carries a task out, and what Ctrl-C leaves of it where it does not say so itself."""

    run: Run
    left: str


AGAIN = "the same command begins again"
_NO_VERDICT = f"the model is as it was and there is no verdict; {AGAIN}"

# After the functions that they name; trials and cells are no tasks of their own.
TASKS: dict[Task, TaskRow] = {
    Task.train: TaskRow(_trained, f"learning had not begun and nothing is written; {AGAIN}"),
    Task.compare: TaskRow(_compared, f"no cell had begun; {AGAIN}"),
    Task.promote: TaskRow(_promoted, f"nothing is promoted and nothing was trained; {AGAIN}"),
    Task.analyse: TaskRow(
        _of(analyse), f"the study is as it was, its page may be an older one; {AGAIN}"
    ),
    Task.power: TaskRow(_of(power), f"nothing is written; {AGAIN}"),
    Task.evaluate: TaskRow(
        _of(lambda config: evaluate(config).sharpe_annual),
        f"no score is written, a recorded test access stays recorded; {AGAIN}",
    ),
    Task.paper: TaskRow(
        _of(_on_paper),
        f"the replay is not scored, a recorded test access stays recorded; {AGAIN}",
    ),
    Task.decide: TaskRow(
        _of(lambda config: float(decide(config))), f"no decision was written; {AGAIN}"
    ),
    Task.report: TaskRow(
        _without_objective(report), f"the page may be missing or an older one; {AGAIN}"
    ),
    Task.export: TaskRow(
        _without_objective(export), f"the model is as it was, its exports may be missing; {AGAIN}"
    ),
    Task.rollback: TaskRow(
        _without_objective(rollback),
        "what was decided last holds, task=verify says which model reigns",
    ),
    Task.verify: TaskRow(_without_objective(verify), _NO_VERDICT),
    Task.audit: TaskRow(_without_objective(audit_artifact), _NO_VERDICT),
    Task.deliver_records: TaskRow(
        _without_objective(deliver_records),
        "what was not sent yet still waits; the same command goes on",
    ),
}
