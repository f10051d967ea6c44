"""Kill promotions at random moments: the champion must be whole each time, old or new.

    python benchmarks/promotion_kills.py [--exchanges 20] [--commands 20] [--json PATH]

`--exchanges`: a process that exchanges champions without a pause is killed (SIGKILL) after a
random time, so that every kill falls into an exchange.  `--commands`: the whole command
`task=promote` on a tiny study, killed at a random moment of its life.  After each kill, before
anything is repaired, the champion has to load and verify; after `recover` nothing may be left of
the exchange, and the former champion has to load too.
"""

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import harness

from ppo_workbench.delivery.artifact import exchange_folder, load_artifact
from ppo_workbench.delivery.champions import install_champion, previous_name, recover
from ppo_workbench.delivery.metadata import Status

NAME = "maskable_production_final"
SWEEP = [
    *("--multirun", "sweep=smoke", "hydra.sweeper.study_name=smoke", "tracking=none"),
    *("data.synthetic.sessions=70", "model.n_envs=4", "budget.timesteps=1024"),
]
PROMOTE = [
    *("task=promote", "promote.study=smoke", "promote.profile=research", "promote.top_k=1"),
    *("promote.seeds=[11,12]", "tracking=none"),
]


def exchange_for_ever(folder: Path) -> None:
    """Exchange the two models that are there, without a pause; runs until it is killed."""
    stored = [load_artifact(folder, name) for name in (NAME, previous_name(NAME))]
    print("ready", flush=True)
    while True:
        for artifact in reversed(stored):
            install_champion(folder, NAME, artifact)


def check(folder: Path, counts: Counter[str]) -> None:
    """Look at the folder as a reader does, then recover and look again."""
    champion = load_artifact(folder, NAME).metadata
    assert champion.status is Status.champion
    staging = exchange_folder(folder, NAME)
    counts["in an exchange"] += staging.is_dir()
    counts["after its commit"] += (staging / "committed").is_file()
    recover(folder, NAME)
    assert load_artifact(folder, NAME).metadata.status is Status.champion
    assert load_artifact(folder, previous_name(NAME)).metadata.status is Status.previous
    names, endings = (NAME, previous_name(NAME)), (".pth", "-metadata.json")
    whole = {f"{name}{ending}" for name in names for ending in endings}
    assert {path.name for path in folder.iterdir()} == whole


def command(home: Path, *arguments: str) -> subprocess.Popen[str]:
    nowhere = subprocess.DEVNULL
    return harness.start(home, *arguments, stdout=nowhere, stderr=nowhere)


def prepare(home: Path) -> float:
    """Sweep, promote twice; return how long the second promotion took, in seconds."""
    for arguments in (SWEEP, PROMOTE):
        assert command(home, *arguments).wait() == 0
    began = time.monotonic()
    assert command(home, *PROMOTE).wait() == 0
    return time.monotonic() - began


def killed_exchanges(folder: Path, kills: int, rng: random.Random) -> Counter[str]:
    counts: Counter[str] = Counter()
    for _ in range(kills):
        script = [sys.executable, __file__, "--child", str(folder)]
        with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.0, 0.3))
            process.kill()
            process.wait()
        check(folder, counts)
    return counts


def killed_commands(home: Path, kills: int, seconds: float, rng: random.Random) -> Counter[str]:
    counts: Counter[str] = Counter()
    for _ in range(kills):
        process = command(home, *PROMOTE)
        try:
            process.wait(timeout=rng.uniform(0.2, 1.0) * seconds)
            counts["ended before the kill"] += 1
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        check(home / "trained_models", counts)
    return counts


def main() -> None:
    flags = {"exchanges": 20, "commands": 20, "seed": 0, "json": Path}
    child = Path, harness.HIDDEN
    arguments = harness.parser(__doc__, **flags, child=child).parse_args()
    if arguments.child:
        exchange_for_ever(arguments.child)
    rng, result = random.Random(arguments.seed), {}
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        seconds = prepare(home)
        kinds = {
            "exchanges": killed_exchanges(home / "trained_models", arguments.exchanges, rng),
            "commands": killed_commands(home, arguments.commands, seconds, rng),
        }
        for kind, counts in kinds.items():
            kills = getattr(arguments, kind)
            result[kind] = {"kills": kills, "champion_whole": kills, **counts}
            print(f"{kind}: {kills} kills, champion whole every time; {dict(counts)}")
    harness.write(arguments.json, result, indent=2)


if __name__ == "__main__":
    main()
