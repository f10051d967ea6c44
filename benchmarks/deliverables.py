"""Make the deliverables: sweep, promote, train the baseline, compare, collect the evidence.

    make deliverables                                     # hours; killed, the same command goes on
    make deliverables DELIVERABLES_ARGS="--trials 16"
    python benchmarks/deliverables.py --help

Every step is a command of the workbench, with `PPO_WORKBENCH_HOME` (by default the present
folder) as its home:

1. `sweep`      learning rate and entropy on the market of `experiment=deliverables`
2. `analyse`    the hyperparameter analysis
3. `promote`    the best trials on fresh seeds; the gates decide.  A refusal ends here, code 3.
4. `masked`     the champion's training once more, recorded: log, metrics, the same weights
5. `baseline`   standard PPO, forbidden actions carried out: the winner's hyperparameters and
                timesteps, of the promotion's seeds the one with the best validation bound
6. `score_*`    both models on validation and test
7. evidence     copied to docs/deliverables/, with a manifest of hashes, and with the comparison
                on twenty other markets, which has to be there before: a block of reporting seeds
                is opened by a command of its own (docs/seeds.md)

What a step printed is in `mlruns/deliverables/STEP.log`; `STEP.done` there says that it has
ended well, and with which command: with other options the step is refused.
"""

import argparse
import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deliverable_evidence as evidence
import harness

CHAMPION, BASELINE = evidence.CHAMPION, evidence.BASELINE
STUDY, EXPERIMENT = "deliverables", "experiment=deliverables"
MASKED = "maskable_production_training"
REFUSED = 3


@dataclass
class Home:
    """The home folder, and the steps that have ended well in it."""

    path: Path
    _descriptor: int = -1

    @property
    def steps(self) -> Path:
        return self.path / "mlruns" / "deliverables"

    def run(
        self,
        step: str,
        *arguments: str,
        again: Sequence[str] | None = None,
        refusal: int | None = None,
    ) -> int:
        """Run one command unless it has ended well before; return its exit code.

        Args:
            step: Name of the step.
            arguments: The command.
            again: The command that goes on with it after a kill, by default the same.
            refusal: Code that the caller looks into; such a step is not marked here.
        """
        done = self.steps / f"{step}.done"
        told = " ".join(arguments)
        if done.exists():
            before = json.loads(done.read_text(encoding="utf-8"))
            if before["command"] != told:
                raise SystemExit(
                    f"{step}: was done with other options ({before['command']}); give the same, "
                    f"or remove {self.steps} and the products of the steps from there on"
                )
            print(f"{step}: done before", flush=True)
            return int(before["code"])
        print(f"{step}: python -m ppo_workbench {' '.join(again or arguments)}", flush=True)
        code = self._call(step, again or arguments)
        if code == 0:
            self.mark(step, arguments, code)
        if code in (0, refusal):
            return code
        raise SystemExit(
            f"{step}: ended with code {code}, {self.steps / (step + '.log')} says why; mend it, "
            "then the same command goes on from here"
        )

    def mark(self, step: str, arguments: Sequence[str], code: int) -> None:
        """Say that a step has ended well."""
        told = json.dumps({"command": " ".join(arguments), "code": code})
        harness.write_whole(self.steps / f"{step}.done", told)

    def lock(self) -> None:
        """Refuse a second start while the first, or a command that it left, is running."""
        self.steps.mkdir(parents=True, exist_ok=True)
        # Commands inherit the descriptor, and with it the lock, until the last of them ends.
        self._descriptor = os.open(self.steps / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SystemExit(
                f"{self.steps}: another start, or a command that it left behind, is still "
                "running; wait for its end or end it"
            ) from None

    def _call(self, step: str, arguments: Sequence[str]) -> int:
        shared, wide = (self._descriptor,), {"COLUMNS": "100"}
        with (self.steps / f"{step}.log").open("a", encoding="utf-8") as log:
            files: dict[str, Any] = {"stdout": log, "stderr": log, "pass_fds": shared}
            return harness.start(self.path, *arguments, changes=wide, **files).wait()


def train(home: Home, step: str, folder: str, name: str, settings: Sequence[str]) -> None:
    """Train one model by name; a run that was killed is resumed from its checkpoint."""
    checkpoint = home.path / "mlruns" / "checkpoints" / f"{name}.ckpt"
    again = [f"resume={name}"] if checkpoint.exists() else None
    whole = (home.path / folder / f"{name}-metadata.json").exists()
    if whole and again is None and not (home.steps / f"{step}.done").exists():
        # Killed between the model's last file and the mark: what stands is the step's own.
        home.mark(step, [*settings, f"output={name}"], 0)
    home.run(step, *settings, f"output={name}", again=again)


def promote(home: Home, options: argparse.Namespace) -> dict[str, Any]:
    """Promote and return promotion.json; a refusal ends the program."""
    chosen = [f"promote.study={STUDY}", f"promote.output={CHAMPION}", *options.promote_set]
    command = ["task=promote", *chosen]
    found = evidence.last_promotion(home.path, CHAMPION)
    if found is None or found[1]["study"] != STUDY:
        home.run("promote", *command, refusal=REFUSED)
        found = evidence.last_promotion(home.path, CHAMPION)
    if found is None:
        raise SystemExit(f"promote: came to no verdict, {home.steps / 'promote.log'} says why")
    # A verdict stands, also where a kill came before its mark: each further look at the test
    # would be a further chance.
    folder, document = found
    home.mark("promote", command, 0 if document["promoted"] else REFUSED)
    if not document["promoted"]:
        refusing = [gate for gate in document["gates"] if not gate["passed"]]
        for gate in refusing:
            print(f"  {gate['name']}: {gate['reason']}")
        print(
            f"nothing is promoted, so nothing is delivered: {len(refusing)} of "
            f"{len(document['gates'])} gates refuse; the report is {folder / 'promotion.html'}. "
            "The verdict on this study stands: another needs another market or recipe, in a "
            "home of its own"
        )
        raise SystemExit(REFUSED)
    return document


def make(home: Home, options: argparse.Namespace) -> None:
    """Go through all steps."""
    market = [EXPERIMENT, *options.market_set]
    home.run(
        *("sweep", "--multirun", "sweep=lr_entropy", *market),
        *(f"hydra.sweeper.study_name={STUDY}", f"hydra.sweeper.n_trials={options.trials}"),
        *options.sweep_set,
    )
    home.run("analyse", "task=analyse", f"study={STUDY}")
    document = promote(home, options)
    params = evidence.winner_overrides(document)
    settings = [*market, *params]
    masked = [*settings, "model=maskable_ppo", f"seed={document['winner']['seed']}"]
    train(home, "masked", "trained_models", MASKED, masked)
    seed = evidence.baseline_seed(home.path, document)
    standard = [*settings, "model=ppo", "env.forbidden_action=execute", f"seed={seed}"]
    train(home, "baseline", "baselines", BASELINE, standard)
    for name, own in ((CHAMPION, masked), (BASELINE, standard)):
        for split in evidence.SPLITS:
            result = home.steps / f"{name}-{split}.json"
            chosen = [f"artifact={name}", f"split={split}", f"result_json={result}"]
            home.run(f"score_{name}_{split}", "task=evaluate", *own, *chosen)
    evidence.collect(home.path, STUDY, options.comparison, MASKED)


def main() -> None:
    options = harness.parser(
        __doc__,
        trials=(16, "of the sweep"),
        comparison=("reporting", "name in comparisons/ of a finished one"),
        market_set=([], "further override of all trainings"),
        sweep_set=([], "further override of sweep"),
        promote_set=([], "further override of promote"),
    ).parse_args()
    home = Home(Path(os.environ.get("PPO_WORKBENCH_HOME") or ".").absolute())
    if not evidence.comparison_file(home.path, options.comparison).is_file():
        raise SystemExit(
            f"comparisons/{options.comparison}: no finished comparison; make it first: python -m "
            f"ppo_workbench task=compare compare=reporting output={options.comparison}"
        )
    home.lock()
    make(home, options)


if __name__ == "__main__":
    main()
