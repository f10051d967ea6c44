"""Make every figure about trading that README and pages show: one command, to be repeated.

    make evidence                                        # under three hours on two cores
    make evidence EVIDENCE_ARGS="--only comparison"
    make evidence EVIDENCE_ARGS="--hourly ibm_1h.csv.gz --minute spy_1min.csv"  # your own bars too
    python benchmarks/evidence.py --list

Each step is a command of the project and the files that it makes.  `mlruns/evidence/STEP.done`
under `PPO_WORKBENCH_HOME` marks what has ended well, with its commit and seconds, `STEP.log` is
what it printed: killed, the same command goes on from there.  A step of another commit is made
again only with `--again`.  Figures of speed, of starts and of injected faults have commands of
their own beside them on the pages: they say nothing about trading.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = "docs/results"
ENDS = (".pth", "-metadata.json")
OWN_BARS = ("hourly", "minute")


@dataclass(frozen=True)
class Step:
    """One command: what follows python, what it makes, and about how many minutes it takes.

    What it makes under the home is brought into the repository; `here` reads it from there.
    """

    name: str
    command: str
    makes: tuple[str, ...]
    minutes: int
    here: bool = False


def _compared(market: str, seeds: str) -> Step:
    arguments = f"data={market} ~compare.markets.no_edge compare.seeds=[{seeds}] output={market}"
    copied = f"{RESULTS}/comparison_{market}.json"
    command = f"-m ppo_workbench task=compare compare=reporting {arguments}"
    return Step(market, command, (copied,), 12)


STEPS = (
    Step(
        "comparison",
        "-m ppo_workbench task=compare compare=reporting output=reporting",
        (),  # copied by the next step
        30,
    ),
    Step(
        "deliverables",
        "benchmarks/deliverables.py --trials 16 --promote-set promote.top_k=2 "
        "--comparison reporting",
        (
            "docs/deliverables",
            *(f"trained_models/maskable_production_final{end}" for end in ENDS),
            *(f"baselines/ppo_baseline_final{end}" for end in ENDS),
        ),
        15,
    ),
    Step("criteria", "benchmarks/deliverable_tables.py --write", ("docs/asked.md",), 1, here=True),
    Step(
        "picture",
        "benchmarks/picture.py --comparison reporting",
        ("docs/results/curves.json", "docs/equity.svg"),
        1,
    ),
    Step("headline", "benchmarks/headline.py", ("README.md", "docs/results.md"), 1),
    Step(
        "reward_hurdle",
        f"benchmarks/reward_hurdle.py --jobs 2 --json {RESULTS}/reward_hurdle.json",
        (f"{RESULTS}/reward_hurdle.json",),
        35,
    ),
    Step(
        "recipe",
        f"benchmarks/recipe.py --jobs 2 --json {RESULTS}/recipe.json",
        (f"{RESULTS}/recipe.json",),
        25,
    ),
    Step(
        "references",
        f"benchmarks/references.py --jobs 2 --json {RESULTS}/references.json",
        (f"{RESULTS}/references.json",),
        4,
    ),
    Step(
        "select_checkpoint",
        f"benchmarks/select_checkpoint.py --jobs 2 --json {RESULTS}/select_checkpoint.json",
        (f"{RESULTS}/select_checkpoint.json",),
        10,
    ),
    Step(
        "real_bars",
        f"benchmarks/real_bars.py --jobs 2 --json {RESULTS}/real_bars.json",
        (f"{RESULTS}/real_bars.json",),
        25,
    ),
    _compared("mask_neutral", "632,633,634,635"),
    _compared("mask_adverse", "632,633,634,635"),
    Step(
        "null_promotions",
        f"benchmarks/promotion_gates.py null --promotions 36 --jobs 2 "
        f"--json {RESULTS}/promotion_gates_null.json",
        (f"{RESULTS}/promotion_gates_null.json",),
        12,
    ),
)


def main() -> None:
    """Carry out the steps that are not marked as done."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", choices=[step.name for step in STEPS])
    parser.add_argument("--again", action="store_true", help="also what is marked as done")
    parser.add_argument("--list", action="store_true", help="show the steps")
    for name in OWN_BARS:
        parser.add_argument(f"--{name}", type=Path, help=f"{name} bars for real_bars.py")
    options = parser.parse_args()
    home = Path(os.environ.get("PPO_WORKBENCH_HOME", ROOT)).absolute()
    chosen = [step for step in STEPS if options.only is None or step.name in options.only]
    for step in chosen:
        if options.list:
            print(f"{step.name} (about {step.minutes} minutes): python {step.command}")
        else:
            files = {name: getattr(options, name) for name in OWN_BARS}
            own = [f"--{name}={path.absolute()}" for name, path in files.items() if path]
            carry_out(step, home, own if step.name == "real_bars" else [], again=options.again)


def carry_out(step: Step, home: Path, more: list[str], *, again: bool) -> None:
    """Run one step, unless it is marked as done, and keep what it made."""
    folder = home / "mlruns" / "evidence"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / f"{step.name}.done"
    if done.exists() and not again:
        print(f"{step.name}: done at {json.loads(done.read_text())['commit'][:10]}", flush=True)
        return
    print(f"{step.name}: python {step.command}", flush=True)
    started = time.monotonic()
    with (folder / f"{step.name}.log").open("a", encoding="utf-8") as log:
        place = str(ROOT if step.here else home)
        environment = os.environ | {"PPO_WORKBENCH_HOME": place, "COLUMNS": "100"}
        command = [sys.executable, *shlex.split(step.command), *more]
        code = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False
        ).returncode
    if code != 0:
        raise SystemExit(f"{step.name}: ended with code {code}, {log.name} says why")
    _bring(step, home)
    missing = [name for name in step.makes if not (ROOT / name).exists()]
    if missing:
        raise SystemExit(f"{step.name}: did not make {', '.join(missing)}")
    told = {"commit": _commit(), "seconds": round(time.monotonic() - started)}
    done.write_text(json.dumps(told), encoding="utf-8")


def _bring(step: Step, home: Path) -> None:
    """Copy what a step made under a home elsewhere, and a comparison of its own, to the results."""
    found = home / "comparisons" / step.name / "comparison.json"
    if step.makes and found.exists():
        shutil.copyfile(found, ROOT / step.makes[0])
    for name in step.makes if home != ROOT else ():
        if (home / name).is_dir():
            shutil.copytree(home / name, ROOT / name, dirs_exist_ok=True)
        elif (home / name).is_file():
            shutil.copyfile(home / name, ROOT / name)


def _commit() -> str:
    asked = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
