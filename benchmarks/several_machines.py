"""Three machines share a study, then a comparison: what is killed there is told and repeated.

    python benchmarks/several_machines.py [--rounds 5] [--cases sweep,comparison] [--seed 0]
        [--json docs/results/several_machines.json]

A machine is a network namespace with process ids of its own, so that nothing of another can be
looked up there; a bridge joins them, and beside them stand PostgreSQL and an MLflow server.  All
three are given the same command, with one worker each.  In every round, at random moments:

sweep: a worker's process is killed, then all connections to the database, then the main process
    of the second machine, then the third machine with all that runs there.
comparison: a worker's process, the second machine's main process, the third machine.  The home
    folder is shared.

The rest has to end well by itself, with exactly as many trials or cells as were asked for, nothing
left running, and a reason for everything that was lost; each is recorded once, at the latest by
the next start of the same command, which has nothing else to do.  Needs root, ip(8),
unshare(1), and PostgreSQL's programs on the path.
"""

import argparse
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import psutil
from sweep_real_faults import Case, wait_until

HOST, MACHINES, PORTS = "10.77.0.1", 3, (5432, 5000)
DATABASE = f"postgresql+psycopg://postgres@{HOST}:{PORTS[0]}/postgres"
MLFLOW = f"http://{HOST}:{PORTS[1]}"
TRIALS = 16
BEAT = "hydra.sweeper.heartbeat_seconds=3"
GRACE_SECONDS = 13.0  # four beats, in which another machine may record a trial that it has ended
SWEEP = ["--multirun", "sweep=smoke", "budget.timesteps=2048", f"hydra.sweeper.n_trials={TRIALS}"]
SWEEP += ["hydra.sweeper.study_name=real", f"hydra.sweeper.storage='{DATABASE}'", BEAT]
COMPARE = ["task=compare", "output=shared", "compare.seeds=[0,1,2]", "compare.resamples=200"]
COMPARE += [
    "data.synthetic.sessions=70",
    "env.episode_bars=390",
    "features.volatility_slow_bars=390",
]
COMPARE += ["splits.gap_bars=0", "model.n_envs=4", "model.n_steps=32", "model.batch_size=64"]
COMPARE += ["budget.timesteps=2048", "budget.evaluations=2"]
ONE_WORKER = [f"tracking.uri={MLFLOW}", "hydra.launcher.n_jobs=1"]
# The first process of a machine outlives the command, so that what that leaves can be seen.
INIT = ("sh", "-c", '"$@"; echo "ended with code $?"; sleep 60', "init")


@dataclass
class Machine:
    """A network namespace, and the command that it runs."""

    number: int
    process: "subprocess.Popen[str] | None" = None
    starts: int = 0

    def start(self, home: Path, *arguments: str) -> None:
        """Start a command of the workbench in process ids of its own."""
        self.starts += 1
        self.log = home / f"machine_{self.number}_{self.starts}.log"
        apart = ["ip", "netns", "exec", f"m{self.number}", "unshare", "--pid", "--fork"]
        apart += ["--kill-child", "--mount-proc", *INIT, sys.executable, "-m", "ppo_workbench"]
        changes = os.environ | harness.TREE | {"PPO_WORKBENCH_HOME": str(home)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*apart, *arguments], env=changes, cwd=home, stdout=log, stderr=log, text=True
            )

    @property
    def family(self) -> list[psutil.Process]:
        """What runs there, without the machine's first process."""
        assert self.process is not None
        with suppress(psutil.Error):
            found = psutil.Process(self.process.pid).children(recursive=True)
            return [
                one for one in found if one.ppid() != self.process.pid and one.name() != "sleep"
            ]
        return []

    @property
    def main(self) -> psutil.Process:
        return next(one for one in self.family if "ppo_workbench" in one.cmdline())

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes of jobs: each leads a group of its own."""
        found = []
        for one in self.family:
            with suppress(psutil.Error, OSError):
                if os.getpgid(one.pid) == one.pid and one.pid != self.main.pid:
                    found.append(one)
        return found

    @property
    def told(self) -> str:
        return self.log.read_text()

    def off(self) -> None:
        """End the machine and all that runs there at once."""
        assert self.process is not None
        self.process.kill()  # its first process dies with it, and the kernel ends the others
        self.process.wait()

    def end(self) -> list[str]:
        """Wait for the command's end and turn the machine off; say what was wrong."""
        with suppress(TimeoutError):
            wait_until(lambda: "ended with code" in self.told, 600)
        well = "ended with code 0" in self.told
        left = self.left()
        self.off()
        problems = [] if well else [f"machine {self.number} did not end well"]
        return problems + [f"machine {self.number}: {left} processes left"] * bool(left)

    def left(self) -> int:
        """Wait until the command's processes have ended; count those that have not."""
        _, alive = psutil.wait_procs(self.family, timeout=20)
        return sum(one.status() != psutil.STATUS_ZOMBIE for one in alive if one.is_running())


def run(*command: str, **named: Any) -> None:
    subprocess.run(command, check=True, capture_output=True, **named)


@contextmanager
def network() -> Iterator[list[Machine]]:
    """Join the machines by a bridge; it all is gone with this process's namespaces."""
    run("mount", "-t", "tmpfs", "none", "/run")
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "addr", "add", f"{HOST}/24", "dev", "br0")
    run("ip", "link", "set", "br0", "up")
    for number in range(1, MACHINES + 1):
        name = f"m{number}"
        run("ip", "netns", "add", name)
        run(
            "ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", name
        )
        run("ip", "link", "set", f"v{number}", "master", "br0", "up")
        inside = ("ip", "-n", name)
        run(*inside, "addr", "add", f"10.77.0.{number + 1}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run(*inside, "link", "set", device, "up")
    yield [Machine(number) for number in range(1, MACHINES + 1)]


@contextmanager
def servers(folder: Path, host: str, ports: tuple[int, int]) -> Iterator[None]:
    """Run PostgreSQL, which lets in everybody who reaches it, and an MLflow server."""
    owner = pwd.getpwnam("postgres")
    data = folder / "postgresql"
    data.mkdir()
    folder.chmod(0o755)
    shutil.chown(data, owner.pw_uid)
    as_owner: dict[str, Any] = {"user": owner.pw_uid, "group": owner.pw_gid, "cwd": data}
    run("initdb", "-D", str(data), "-A", "trust", "-U", "postgres", **as_owner)
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all samenet trust\n")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = ["postgres", "-D", str(data), "-h", host, "-p", str(ports[0]), "-k", str(data)]
    database = subprocess.Popen(started, **as_owner, **quiet)
    store = f"sqlite:///{folder}/mlflow.db"
    flags = ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    flags += [f"--host={host}", f"--port={ports[1]}", "--workers=1", "--allowed-hosts=*"]
    with (folder / "mlflow.log").open("w") as log:
        record = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *flags],
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: all(_reached(host, port) for port in ports))
        yield
    finally:
        os.killpg(record.pid, signal.SIGKILL)
        database.send_signal(signal.SIGINT)
        database.wait()


def _reached(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def ask(statement: str) -> None:
    import psycopg

    with psycopg.connect(f"host={HOST} user=postgres dbname=postgres", autocommit=True) as database:
        database.execute(statement)


def drop_connections() -> None:
    ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


def sweep(machines: list[Machine], folder: Path, rng: random.Random) -> dict[str, Any]:
    ask("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    case = Case(folder, TRIALS, DATABASE, MLFLOW)
    homes = [folder / f"home_{machine.number}" for machine in machines]
    for machine, home in zip(machines, homes, strict=True):
        home.mkdir()
        machine.start(home, *SWEEP, *ONE_WORKER)
    facts = _kill(machines, rng, [_worker, drop_connections, _main, _machine], "trial ")
    found = list(facts.pop("problems"))
    time.sleep(GRACE_SECONDS)  # a machine that was cut off may yet record what it had ended
    machines[0].start(homes[0], *SWEEP, *ONE_WORKER)
    found += machines[0].end()
    trials = case.trials()
    finished = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    distinct = len({tuple(trial.params.values()) for trial in finished})
    if not len(finished) == distinct == TRIALS:
        found.append(f"{len(finished)} finished, {distinct} distinct of {TRIALS}")
    reasons = Counter[str]()
    for trial in trials:
        if trial.state.name == "FAIL":
            reasons[str(trial.user_attrs.get("fail_reason"))] += 1
        elif trial not in finished:
            found.append(f"trial {trial.number} is {trial.state.name}")
    results = {
        json.loads(p.read_text())["state"] for p in folder.glob("home_*/sweeps/*/*/result.json")
    }
    found += [f"results say {results}"] * (not results <= {"COMPLETE", "PRUNED"})
    found += case._run_problems(trials)
    forget(recorded(""))
    return {"problems": found, **facts, "lost": dict(reasons)}


def recorded(wanted: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(MLFLOW)
    found = client.search_runs([e.experiment_id for e in client.search_experiments()], wanted)
    return list(found)


def forget(runs: list[Any]) -> None:
    """Delete the runs of a round: the next one's study has the same name."""
    from mlflow import MlflowClient

    for run in runs:
        MlflowClient(MLFLOW).delete_run(run.info.run_id)


def comparison(machines: list[Machine], folder: Path, rng: random.Random) -> dict[str, Any]:
    for machine in machines:
        machine.start(folder, *COMPARE, *ONE_WORKER)
    facts = _kill(machines, rng, [_worker, _main, _machine], "/15 ")
    found = list(facts.pop("problems"))
    path = folder / "comparisons" / "shared" / "comparison.json"
    if not path.is_file():
        return {"problems": [*found, "no document"], **facts}
    document = harness.read(path)
    alone = folder / "alone"
    alone.mkdir()
    assert harness.workbench(alone, *COMPARE, "tracking=none") == 0
    same = harness.read(alone / "comparisons" / "shared" / "comparison.json")
    found += ["other figures than one process finds"] * (document["figures"] != same["figures"])
    found += [f"looks: {document['setup']['markets']}"] * (
        [market["looks"] for market in document["setup"]["markets"]] != [4, 4, 4]
        and document["setup"]["markets"] != same["setup"]["markets"]
    )
    runs = recorded("tags.comparison = 'shared'")
    states = Counter((run.data.tags.get("cell", "whole"), run.info.status) for run in runs)
    done = Counter(name for name, status in states.elements() if status == "FINISHED")
    cells = {path.parent.name for path in folder.glob("comparisons/shared/cells/*/result.json")}
    found += [f"recorded {done}"] * (done != Counter([*cells, "whole"]))
    found += ["a run is RUNNING"] * any(status == "RUNNING" for _, status in states)
    forget(runs)
    return {"problems": found, **facts, "cells": len(cells)}


def _kill(
    machines: list[Machine], rng: random.Random, kills: list[Any], counted: str
) -> dict[str, Any]:
    """Kill one after the other while the work goes on, then wait for the end of the rest."""
    first, second, third = machines
    problems, began = list[str](), time.monotonic()
    wait_until(lambda: any(counted in machine.told for machine in machines))
    for kill in kills:
        time.sleep(rng.uniform(1.0, 4.0))
        if kill is drop_connections:
            kill()
        else:
            problems += kill({_worker: first, _main: second, _machine: third}[kill])
    problems += first.end()
    for machine in machines:
        machine.off()  # once more for some
    return {"problems": problems, "wall_seconds": round(time.monotonic() - began)}


def _worker(machine: Machine) -> list[str]:
    wait_until(lambda: bool(machine.workers))
    machine.workers[0].kill()
    return []


def _main(machine: Machine) -> list[str]:
    machine.main.kill()
    left = machine.left()
    return [f"machine {machine.number}: {left} processes left"] * bool(left)


def _machine(machine: Machine) -> list[str]:
    machine.off()
    return []


CASES = {"sweep": sweep, "comparison": comparison}


def inside(options: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {name: [] for name in options.cases.split(",")}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, network() as machines:
        folder = Path(scratch)
        with servers(folder, HOST, PORTS):
            for number in range(options.rounds):
                for name, rounds in results.items():
                    place = folder / f"{name}_{number}"
                    place.mkdir()
                    rng = random.Random(f"{options.seed} {name} {number}")
                    try:
                        rounds.append(CASES[name](machines, place, rng))
                    except TimeoutError:
                        rounds.append({"problems": ["nothing to kill"]})
                    print(f"{name} {number}: {json.dumps(rounds[-1])}", flush=True)
                    if rounds[-1]["problems"]:
                        for log in sorted(place.rglob("machine_*.log")):
                            print(f"{log.name}:\n{log.read_text()}")
    return results


def table(results: dict[str, Any]) -> str:
    """Return what held, in Markdown."""
    kills = {
        "sweep": "a worker, all database connections, a main process, a machine",
        "comparison": "a worker, a main process, a machine",
    }
    asked = {"sweep": f"{TRIALS} trials", "comparison": "16 cells, figures as one process finds"}
    rows = []
    for name, rounds in results.items():
        lost = Counter[str]()
        for one in rounds:
            lost.update(one.get("lost", {}))
        told = ", ".join(f"{count} {reason}" for reason, count in lost.most_common())
        held = sum(not one["problems"] for one in rounds)
        exact = f"{held} of {len(rounds)}"
        rows.append((name, kills[name], asked[name], exact, told or "run once more"))
    return harness.table(("what", "killed in each round", "asked", "exact", "lost, told"), rows)


def why_not() -> str | None:
    """Say what this machine lacks, None if nothing."""
    missing = [name for name in ("ip", "unshare", "initdb", "postgres") if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)}: not on the path"
    if os.geteuid() != 0 or not any(user.pw_name == "postgres" for user in pwd.getpwall()):
        return "needs root, and a user postgres"
    bridge = ("unshare", "--net", "--mount", "ip", "link", "add", "br0", "type", "bridge")
    if subprocess.run(bridge, capture_output=True).returncode:
        return "this machine allows no network namespace with a bridge"
    return None


def main() -> None:
    flags = {"rounds": 5, "cases": "sweep,comparison", "seed": 0, "json": Path}
    options = harness.parser(__doc__, **flags, inside=(False, harness.HIDDEN)).parse_args()
    if not options.inside:
        if reason := why_not():
            print(f"skipped: {reason}")
            return
        apart = ["unshare", "--net", "--mount", sys.executable, __file__, "--inside", *sys.argv[1:]]
        sys.exit(subprocess.run(apart).returncode)
    results = inside(options)
    harness.write(options.json, results)
    print(table(results))
    sys.exit(any(one["problems"] for rounds in results.values() for one in rounds))


if __name__ == "__main__":
    main()
