"""Promote the best of a study to the production model, if it has earned it; or roll back.

In this order: the study is read and every contender's bars are checked, candidates race on fresh
seeds, the winner by its bound on validation is chosen, baselines are trained, the test is opened
once, the gates judge.  Nothing in trained_models/ changes before all of them have passed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ppo_workbench.config import (
    ArtifactError,
    Config,
    ConfigError,
    Interrupted,
    PromotionError,
    PromotionProfile,
    Raw,
)
from ppo_workbench.delivery.artifact import (
    Artifact,
    ArtifactPaths,
    artifact_paths,
    check_output_name,
    check_writable,
    exchange_folder,
    load_artifact,
    save_artifact,
)
from ppo_workbench.delivery.champions import (
    damaged_copies,
    finish_exchange,
    install_champion,
    previous_name,
    reigning_champion,
    roll_back,
    stale_exports,
)
from ppo_workbench.delivery.describe import plain
from ppo_workbench.delivery.metadata import Metadata, Status
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.pipeline.compare.cell import audit_counts
from ppo_workbench.pipeline.given import Given
from ppo_workbench.pipeline.models.document import references
from ppo_workbench.pipeline.models.stored import home_folder, open_bars_with_test
from ppo_workbench.pipeline.promote.contender import (
    Contender,
    baseline_config,
    candidate_config,
    check_same_bars,
)
from ppo_workbench.pipeline.promote.evidence import (
    BASELINES,
    Opened,
    baseline_paths,
    champion_path,
    collect,
    every_seed,
    inferred,
    replayed,
    threshold_path,
    trial_evidence,
)
from ppo_workbench.pipeline.promote.floors import check_floors
from ppo_workbench.pipeline.promote.succession import check_succession
from ppo_workbench.pipeline.result_json import check_result_path, write_result
from ppo_workbench.pipeline.train.outcome import bars_of
from ppo_workbench.records.registry import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    StoredModel,
    register,
)
from ppo_workbench.records.run_notes import NOTE, headline_metrics, run_note
from ppo_workbench.records.studies.candidates import StudyTrials, read_study
from ppo_workbench.records.studies.lineage import UNKNOWN
from ppo_workbench.records.tracking import Tracker, open_tracker
from ppo_workbench.reports.comparison.document import Comparand
from ppo_workbench.reports.promotion import PromotionDocument, describe, headline, write_reports
from ppo_workbench.scoring.gates.checks import Gate, failed
from ppo_workbench.scoring.gates.profiles import CHAMPION as REIGNING
from ppo_workbench.scoring.gates.profiles import THRESHOLD, Evidence, judge
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.statistics.racing import clearly_worse

PROMOTIONS = "promotions"


@dataclass(frozen=True)
class Promotion:
    """What a promotion came to.

    Attributes:
        promoted: Whether the model became the champion.
        gates: Verdicts.
        folder: Holds promotion.json, promotion.html and every model that was trained.
        document: What promotion.json holds.
        champion: The champion's files, None if it was refused.
    """

    promoted: bool
    gates: list[Gate]
    folder: Path
    document: PromotionDocument
    champion: ArtifactPaths | None


def promote(asked: Config | Given, console: WorkbenchConsole | None = None) -> Promotion:
    """Carry out `task=promote`; a refusal is a result, see `refuse`.

    Args:
        asked: Its `promote` section; bars, rules and model are those of the study's trials.
        console: Where to print.

    Raises:
        ConfigError: The study cannot be promoted from, or `output` is given; before anything is
            trained.
        ArtifactError: `promote.output` is a model that is no champion, or a champion of other
            bars or of a stronger profile, or trained_models/ or promotions/ cannot be written;
            before anything is trained.
        PromotionError: Another promotion of this name is under way.
        Interrupted: Ctrl-C; what is true then has been said.
        LedgerError: The access to the test cannot be recorded.
    """
    given, console = Given.of(asked), console or WorkbenchConsole()
    config, home, name = given.config, given.home, _output(given.config)
    check_result_path(config.result_json)
    with promotion_lock(home, name), _interruptible(console, home, name):
        check_writable(_champions(home))
        finish_exchange(_champions(home), name)
        run = _Promotion(config, home, console)
        tags = {"task": "promote", "study": run.study.name, "profile": run.profile.value}
        title = f"promotion of {name}"
        with open_tracker(config.tracking, home, title, given.raw, tags) as tracker:
            # A promotion that was killed after its exchange of files did not come to this.
            register(config.tracking, home, name, _reigning(_champions(home), name))
            found = run.carry_out(tracker)
            tracker.log_text(console.log_text, "console.log")
    write_result(config.result_json, found.document)
    return found


def refuse(found: Promotion) -> None:
    """Raise the one sentence of a promotion that was refused.

    Raises:
        PromotionError: It was.
    """
    if found.promoted:
        return
    names = [gate.name for gate in failed(found.gates)]
    raise PromotionError(
        f"nothing is promoted: {len(names)} of {len(found.gates)} gates refuse "
        f"({', '.join(names)}); {found.folder / 'promotion.html'} says by how much and what "
        "evidence is missing"
    )


def rollback(config: Config, console: WorkbenchConsole | None = None) -> ArtifactPaths:
    """Carry out `task=rollback`: the former champion reigns again, the present one is the former.

    Done twice it is undone.  A champion that does not load is kept as `NAME.damaged-1`.

    Raises:
        PromotionError: There is no former champion, or a promotion is under way.
    """
    console = console or WorkbenchConsole()
    home, name = home_folder(), _output(config)
    folder = _champions(home)
    with promotion_lock(home, name):
        known = damaged_copies(folder, name)
        paths = roll_back(folder, name)
        models = _reigning(folder, name)
        register(config.tracking, home, name, {**models, CHALLENGER: None})
    console.show(f"champion again: {paths.pth}", wrap=False)
    console.show(f"{name}: {_who(models[CHAMPION])}", wrap=False)
    kept = [path.name for path in damaged_copies(folder, name) if path not in known]
    if kept:
        console.show(
            f"warning: the champion until now did not load, it is kept as {', '.join(kept)}; "
            f"{previous_name(name)} is the same model as the champion now",
            wrap=False,
        )
    else:
        console.show(
            f"{previous_name(name)}: {_who(models[PREVIOUS])}; task=rollback once more exchanges "
            "them back",
            wrap=False,
        )
    _warn_of_exports(console, folder, name)
    return paths


def _output(config: Config) -> str:
    """Return the champion's name, which is not `output`, that of a single training.

    Raises:
        ConfigError: `output` is given.
        ArtifactError: The name is not allowed.
    """
    if config.output is not None:
        task = config.task.value
        raise ConfigError(
            f"output={config.output}: task={task} does not read it, for a champion is no single "
            f"training; write promote.output={config.output}"
        )
    name = check_output_name(config.promote.output, "promote.output")
    check_output_name(previous_name(name), "promote.output")  # the longest name of all
    return name


def _who(model: StoredModel | None) -> str:
    """Say which training a model is of."""
    if model is None:
        return "no whole model"
    metadata = model.metadata
    return f"trial {metadata.trial_number} of study {metadata.study}, seed {metadata.seed}"


def _warn_of_exports(console: WorkbenchConsole, folder: Path, name: str) -> None:
    """Name the exports beside a champion just exchanged: they are of the one before."""
    stale = [path.name for path in stale_exports(folder, name)]
    if stale:
        console.show(
            f"warning: {', '.join(stale)} in {folder} did not change with the champion; export it "
            f"anew: python -m ppo_workbench task=export artifact={name}",
            wrap=False,
        )


@contextmanager
def promotion_lock(home: Path, name: str) -> Iterator[None]:
    """Let one process at a time promote, roll back or recover the champion `name`.

    Raises:
        PromotionError: Another one does.
        ArtifactError: promotions/ cannot be written.
    """
    folder = home / PROMOTIONS
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{name}.lock", timeout=0)  # the kernel ends it with its holder
    try:
        lock.acquire()
    except Timeout:
        raise PromotionError(
            f"promote.output={name}: another promotion or roll-back of it is under way, and only "
            "one can win; wait for its end and repeat"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _interruptible(console: WorkbenchConsole, home: Path, name: str) -> Iterator[None]:
    """Say at Ctrl-C whether the champion is still the one that reigned before."""
    before = _bytes_of_champion(home, name)
    try:
        yield
    except KeyboardInterrupt:
        if exchange_folder(_champions(home), name).exists():
            what = f"the exchange of {name} is half done, the next promotion or roll-back ends it"
        elif _bytes_of_champion(home, name) != before:
            what = f"{name} is exchanged already, only its record is not complete"
        else:
            what = (
                f"nothing is promoted and {name} is as it was; what was trained is in promotions/"
            )
        console.show(f"interrupted: {what}", wrap=False)
        raise Interrupted(float("nan")) from None


def _bytes_of_champion(home: Path, name: str) -> bytes | None:
    try:
        return artifact_paths(_champions(home), name).metadata.read_bytes()
    except OSError:
        return None


def _champions(home: Path) -> Path:
    return home / "trained_models"


def _reigning(folder: Path, name: str) -> dict[str, StoredModel | None]:
    """Return which model is champion and which was, as the files say."""
    files = {CHAMPION: (name, Status.champion), PREVIOUS: (previous_name(name), Status.previous)}
    found = {alias: StoredModel.find(folder, file) for alias, (file, _) in files.items()}
    return {
        alias: model if model and model.metadata.status is files[alias][1] else None
        for alias, model in found.items()
    }


class _Promotion:
    """One promotion, from the study to the verdict."""

    def __init__(self, config: Config, home: Path, console: WorkbenchConsole) -> None:
        """Read the study and refuse what cannot be promoted, before anything is trained."""
        options = config.promote
        if options.study is None:
            raise ConfigError(
                "promote.study: a value is needed, write promote.study=NAME (a folder in sweeps/)"
            )
        self.config, self.options, self.profile = config, options, options.profile
        self._home, self._console, self._name = home, console, options.output
        reigning = self._champion()
        self._reigns = reigning is not None
        self.study: StudyTrials = read_study(
            config.trial.storage, home, options.study, options.top_k
        )
        if self.study.research is not None and self.profile is not PromotionProfile.research:
            raise ConfigError(f"promote.study={options.study}: {self.study.research}")
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        self._folder = home / PROMOTIONS / f"{self._name}-{stamp}"
        self._contenders = {
            candidate.number: self._contender(candidate_config(candidate, config), candidate.number)
            for candidate in self.study.candidates
        }
        check_same_bars(self._contenders, self.study.name)
        for one in self._contenders.values():
            check_floors(one.config, self.profile, one.label)
            if reigning is not None:
                check_succession(reigning, one.bars, one.config, self.profile, self._name)

    def _champion(self) -> Metadata | None:
        try:
            return reigning_champion(_champions(self._home), self._name)
        except ArtifactError:
            if self.config.overwrite:
                return None
            raise

    def _contender(self, own: tuple[Config, Raw], number: int) -> Contender:
        contender = Contender(f"trial {number}", *own, self._folder / f"trial_{number}")
        contender.check_test()
        return contender

    def carry_out(self, tracker: Tracker) -> Promotion:
        """Train, choose, open the test, judge, and install or refuse."""
        self._folder.mkdir(parents=True)
        self._race()
        number = max(self._finalists(), key=lambda k: self._contenders[k].rank())
        winner = self._contenders[number]
        self._console.show(f"chosen: {winner.label}, bound {winner.bound().value:.2f}")
        baselines = self._train_baselines(winner)
        artifact = self._described(winner, number, tracker.run_id)
        evidence, opened = self._open(winner, baselines, artifact)
        gates = judge(self.profile, evidence)
        artifact = _judged(artifact, gates, evidence)
        save_artifact(self._folder, self._name, artifact.tensors, artifact.metadata, overwrite=True)
        promoted = not failed(gates)
        document = self._document(number, evidence, opened, gates, promoted)
        champion = None
        if promoted:
            champion = install_champion(_champions(self._home), self._name, artifact)
        counts = audit_counts([evidence.audit])
        own = Comparand("model", f"{self._name}, trial {number}", evidence.trace, counts)
        shown = [own, *references(opened.experiment, "test")]
        write_reports(self._folder, document, opened.experiment.bars, shown)
        self._console.show(describe(document))
        if promoted:
            _warn_of_exports(self._console, _champions(self._home), self._name)
        tracker.log_bars(bars_of(opened.experiment, winner.raw))
        self._record(tracker, gates, document)
        return Promotion(promoted, gates, self._folder, document, champion)

    def _race(self) -> None:
        """Train all candidates seed by seed; what is clearly worse gets no more seeds."""
        racing, options = dict(self._contenders), self.options
        for seed in options.seeds:
            for contender in racing.values():
                run = contender.train(seed)
                sharpe = run.cards[-1].sharpe_annual
                self._console.show(
                    f"{contender.label}, seed {seed}: validation Sharpe {sharpe:.2f}"
                )
            if options.racing and len(racing) > 1:
                for number in clearly_worse({k: c.scores() for k, c in racing.items()}):
                    self._console.show(f"{racing.pop(number).label}: clearly worse, dropped")

    def _finalists(self) -> list[int]:
        count = len(self.options.seeds)
        return [k for k, contender in self._contenders.items() if len(contender.runs) == count]

    def _train_baselines(self, winner: Contender) -> dict[str, Contender]:
        """Train standard PPO on the winner's seeds, timesteps and hyperparameters."""
        found: dict[str, Contender] = {}
        if self.profile is not PromotionProfile.production:
            return found
        for answer in self.options.baselines:
            name = BASELINES[answer]
            own = baseline_config(winner, answer, self.options.baseline_timesteps)
            rival = Contender(name, *own, self._folder / name)
            for seed in self.options.seeds:
                rival.train(seed)
            found[name] = rival
            self._console.show(f"{name}: bound {rival.bound().value:.2f} on validation")
        return found

    def _described(self, winner: Contender, number: int, run_id: str | None) -> Artifact:
        stored = winner.artifact(winner.delivered())
        changes = {
            "status": Status.challenger,
            "study": self.study.name,
            "trial_number": number,
            "mlflow_run_id": run_id,
        }
        return Artifact(stored.tensors, stored.metadata.model_copy(update=changes))

    def _verified(self, artifact: Artifact) -> tuple[str | None, int]:
        """Save and load the model: what refuses it, and how many golden vectors agreed."""
        try:
            save_artifact(self._folder, self._name, artifact.tensors, artifact.metadata, True)
            return None, replayed(load_artifact(self._folder, self._name))
        except ArtifactError as error:
            return str(error), 0

    def _open(
        self, winner: Contender, baselines: Mapping[str, Contender], artifact: Artifact
    ) -> tuple[Evidence, Opened]:
        """Open the test, once for the winner and all its rivals, and collect the evidence."""
        golden = self._verified(artifact)
        trials = trial_evidence(self.study, list(self._contenders.values()), winner)
        experiment, access = open_bars_with_test(
            winner.config,
            winner.bars,
            winner.splits,
            f"promotion of {self._name} from study {self.study.name}",
            self._folder.name,
        )
        opened = Opened(experiment, access, winner.policy(winner.delivered()))
        rivals = baseline_paths(baselines)
        rivals[THRESHOLD] = threshold_path(experiment)
        if self._reigns:
            rivals[REIGNING] = champion_path(
                winner.config, winner.bars, winner.splits, _champions(self._home), self._name
            )
        seeds = every_seed(winner, baselines)
        return collect(self.config, trials, winner, opened, rivals, seeds, golden), opened

    def _document(
        self,
        number: int,
        evidence: Evidence,
        opened: Opened,
        gates: list[Gate],
        promoted: bool,
    ) -> PromotionDocument:
        winner = self._contenders[number]
        delivered = winner.delivered()
        return {
            "name": self._name,
            "study": self.study.name,
            "profile": self.profile.value,
            "promoted": promoted,
            "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "gates": [plain(asdict(gate)) for gate in gates],
            "winner": {"trial": number, "seed": delivered.seed, "bound": winner.bound().value},
            "candidates": [
                {
                    "trial": candidate.number,
                    "study_value": candidate.value,
                    "params": dict(candidate.params),
                    "bound": self._contenders[candidate.number].bound().value,
                    "seeds": [run.seed for run in self._contenders[candidate.number].runs],
                    "timesteps": self._contenders[candidate.number].config.budget.timesteps,
                }
                for candidate in self.study.candidates
            ],
            "trials": evidence.trials,
            "trials_by_state": dict(self.study.states),
            "trials_elsewhere": dict(self.study.elsewhere),
            "trials_unknown": UNKNOWN,
            "trials_with_returns": len(evidence.trial_returns),
            "test": {k: v for k, v in asdict(opened.access).items() if k != "sessions"},
            "scorecards": {
                "validation": delivered.cards[-1].to_dict(),
                "test": scorecard(evidence.trace).to_dict(),
            },
            "inference": inferred(evidence.trace, self.config),
        }

    def _record(self, tracker: Tracker, gates: list[Gate], document: PromotionDocument) -> None:
        """Give the run every gate and the reports; the registry gives it the model."""
        promoted = bool(document["promoted"])
        metrics = {f"gate/{gate.name}/passed": float(gate.passed) for gate in gates}
        for key in ("value", "threshold", "power"):
            values = {gate.name: getattr(gate, key) for gate in gates}
            metrics |= {f"gate/{k}/{key}": v for k, v in values.items() if v is not None}
        tracker.log_metrics(metrics, 0)
        words = {True: "passed", False: "refused"}
        tags = {f"gate.{gate.name}": f"{words[gate.passed]}: {gate.reason}" for gate in gates}
        cards = document["scorecards"]
        tracker.log_metrics(headline_metrics([cards["test"]]), 0)
        held = f"Report: `{self._folder.parent.name}/{self._folder.name}/promotion.html`"
        note = run_note(cards, [headline(document), f"{held}, and among the artifacts"])
        status = "champion" if promoted else "refused"
        tags |= {NOTE: note, "status": status, "promoted": str(promoted).lower()}
        tracker.set_tags({**tags, "output": self._name})
        for report in ("promotion.json", "promotion.html"):
            tracker.log_artifact(self._folder / report)
        tracker.flush()
        refused = None if promoted else StoredModel.find(self._folder, self._name)
        models = {**_reigning(_champions(self._home), self._name), CHALLENGER: refused}
        register(self.config.tracking, self._home, self._name, models, tracker.run_id)


def _judged(artifact: Artifact, gates: list[Gate], evidence: Evidence) -> Artifact:
    """Give a model's metadata the verdicts and its scorecard on the test."""
    card = plain(scorecard(evidence.trace).to_dict())
    cards = artifact.metadata.scorecards.model_copy(update={"test": card})
    changes = {"gates": [gate.for_metadata() for gate in gates], "scorecards": cards}
    return Artifact(artifact.tensors, artifact.metadata.model_copy(update=changes))
