"""What a real sweep survives: training, pruning and MLflow included, two workers.

    python benchmarks/sweep_real_faults.py [--cases kills,worker,...] [--kills 10]
        [--postgresql postgresql+psycopg://...] [--json docs/results/sweep_faults.json]

kills: SIGKILL at random moments, by turns of the sweep's process group and of its main
    process alone, then the same command until the study is full.
worker: SIGKILL of one job.  journal, sqlite, postgresql: four sweeps started together on a
    storage and an MLflow store that do not exist yet.  closed: MLflow at a port that nobody
    listens on.  server: an MLflow server that dies on the way, comes back, and the same command
    again.  disk: a file system that fills up on the way, and the same command with room again;
    needs a user namespace that may mount.

Each case prints one line: what holds, what does not; any that fails ends it with code 1.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import psutil

TINY = ["sweep=smoke", "budget.timesteps=2048", "hydra.sweeper.study_name=real"]
DONE = ("COMPLETE", "PRUNED")


@dataclass
class Case:
    """A home of its own, and where its study and its runs are."""

    home: Path
    n_trials: int
    storage: str | None = None
    tracking: str | None = None

    @property
    def tracking_uri(self) -> str:
        return self.tracking or f"sqlite:///{self.home}/mlruns/mlflow.db"

    def start(self, *overrides: str) -> "subprocess.Popen[str]":
        arguments = [*TINY, f"hydra.sweeper.n_trials={self.n_trials}", *overrides]
        if self.storage is not None:
            arguments.append(f"hydra.sweeper.storage='{self.storage}'")
        if self.tracking is not None:
            arguments.append(f"tracking.uri={self.tracking}")
        apart: dict[str, Any] = {"stderr": subprocess.STDOUT, "start_new_session": True}
        return harness.piped(self.home, "--multirun", *arguments, **apart)

    def finish(self, *overrides: str) -> tuple[int, str]:
        sweep = self.start(*overrides)
        output, _ = sweep.communicate(timeout=900)
        return sweep.returncode, output

    def trials(self) -> list[Any]:
        return harness.trials(self.home, "real", self.storage)

    def problems(self) -> list[str]:
        """List what is wrong with the study, its folders and its runs."""
        trials, found = self.trials(), []
        finished = [trial for trial in trials if trial.state.name in DONE]
        distinct = len({tuple(trial.params.values()) for trial in finished})
        if not len(finished) == distinct == self.n_trials:
            found.append(f"{len(finished)} finished, {distinct} distinct of {self.n_trials}")
        for trial in trials:
            if trial.state.name in ("RUNNING", "WAITING"):
                found.append(f"trial {trial.number} is {trial.state.name}")
            if trial.state.name == "FAIL" and not trial.user_attrs.get("fail_reason"):
                found.append(f"trial {trial.number} failed without a reason")
            result = self.home / "sweeps" / "real" / str(trial.number) / "result.json"
            if trial.state.name in DONE and (
                not result.is_file() or json.loads(result.read_text())["state"] != trial.state.name
            ):
                found.append(f"trial {trial.number} has no result in its folder")
        return found + self._run_problems(trials)

    def _run_problems(self, trials: list[Any]) -> list[str]:
        from mlflow import MlflowClient

        client, found = MlflowClient(self.tracking_uri), list[str]()
        runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
        parents = [run for run in runs if "trial" not in run.data.tags]
        if [run.info.status for run in parents] != ["FINISHED"]:
            found.append(f"parents: {[run.info.status for run in parents]}")
        by_trial: dict[int, list[Any]] = {}
        for run in runs:
            if "trial" in run.data.tags:
                by_trial.setdefault(int(run.data.tags["trial"]), []).append(run)
        for trial in trials:
            mine = by_trial.get(trial.number, [])
            done = trial.state.name in DONE
            if len(mine) > 1 or (done and not mine):
                found.append(f"trial {trial.number} has {len(mine)} runs")
            for run in mine:
                status = "FINISHED" if done else "FAILED"
                if (run.info.status, run.data.tags["state"]) != (status, trial.state.name):
                    found.append(f"trial {trial.number}: its run is {run.info.status}")
                key = "objective_final"
                points = client.get_metric_history(run.info.run_id, key) if done else [0]
                if len(points) != 1:
                    found.append(f"trial {trial.number}: {len(points)} values of {key}")
        return found


def wait_until(condition: Callable[[], bool], seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)


def family_of(sweep: "subprocess.Popen[str]") -> list[psutil.Process]:
    found: list[psutil.Process] = []
    with suppress(psutil.Error):
        found = psutil.Process(sweep.pid).children(recursive=True)
    return found


def jobs_of(sweep: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Return the processes of trials: each leads a group of its own."""
    return [one for one in family_of(sweep) if os.getpgid(one.pid) == one.pid]


def kills(case: Case, options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    rng, orphans, hits, ended_before = random.Random(options.seed), 0, 0, 0
    for position in range(options.kills):
        sweep = case.start()
        harness.said(sweep, "study real:")
        time.sleep(rng.uniform(0.0, 8.0))
        family = family_of(sweep)
        ended_before += sweep.poll() is not None
        with suppress(ProcessLookupError):
            if position % 2:
                os.kill(sweep.pid, signal.SIGKILL)
            else:
                os.killpg(sweep.pid, signal.SIGKILL)
        sweep.communicate()
        _, alive = psutil.wait_procs(family, timeout=30)
        orphans += len(alive)
        hits += any(trial.state.name == "RUNNING" for trial in case.trials())
    code, output = case.finish()
    found = case.problems()
    found += [f"{orphans} orphan processes"] * bool(orphans)
    found += [f"the last start ended with code {code}: {output[-500:]}"] * bool(code)
    states = Counter(trial.state.name for trial in case.trials())
    told = {"kills": options.kills, "while_trials_ran": hits, "after_the_end": ended_before}
    return found, {**told, "states": states}


def worker(case: Case, options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    sweep = case.start()
    harness.said(sweep, "trial 0 ")
    wait_until(lambda: bool(jobs_of(sweep)))
    time.sleep(1.0)
    jobs_of(sweep)[0].kill()
    output, _ = sweep.communicate(timeout=900)
    reasons = [one.user_attrs["fail_reason"] for one in case.trials() if one.state.name == "FAIL"]
    found = case.problems()
    if reasons != ["the process was killed by SIGKILL"] or sweep.returncode:
        found.append(f"code {sweep.returncode}, reasons {reasons}: {output[-300:]}")
    return found, {"fail_reasons": reasons}


def together(case: Case, options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    one = "hydra.launcher.n_jobs=1"
    sweeps = [case.start(one) for _ in range(4)]
    outputs = [sweep.communicate(timeout=900)[0] for sweep in sweeps]
    codes = [sweep.returncode for sweep in sweeps]
    found = case.problems()
    found += [output[-500:] for output, code in zip(outputs, codes, strict=True) if code]
    found += [output[-500:] for output in outputs if "not recorded" in output]
    if len(case.trials()) != case.n_trials:
        found.append(f"{len(case.trials())} trials in all")
    done = [sum(f"trial {n} " in output for n in range(99)) for output in outputs]
    return found, {"trials_of_each": done}


def closed(case: Case, options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    case.tracking = f"http://127.0.0.1:{_free_port()}"
    began = time.monotonic()
    code, output = case.finish()
    said = [line for line in output.splitlines() if not line.endswith(" ...")]  # of its start
    told = code == 2 and len(said) == 1 and f"tracking.uri={case.tracking}" in said[0]
    found = [] if told else [f"code {code}: {output}"]
    found += ["it has written trials"] * bool(list(case.home.glob("sweeps/real/*/result.json")))
    return found, {"sentence": " ".join(said), "seconds": round(time.monotonic() - began, 1)}


def server(case: Case, options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    port = _free_port()
    case.tracking = f"http://127.0.0.1:{port}"
    first = _mlflow_server(case.home, port)
    try:
        sweep = case.start()
        told = "".join(harness.said(sweep, "trial 0 "))
    finally:
        _end(first)
    began = time.monotonic()
    told += sweep.communicate(timeout=900)[0]
    seconds = time.monotonic() - began
    kept = Counter(trial.state.name for trial in case.trials())
    found = [f"it was not told: {told[-500:]}"] * ("not recorded" not in told)
    found += [f"code {sweep.returncode}: {told[-800:]}"] * bool(sweep.returncode)
    found += [f"states {kept}"] * (kept != {"COMPLETE": case.n_trials})
    second = _mlflow_server(case.home, port)
    try:
        code, output = case.finish()  # the same command: what was not recorded is now
        found += case.problems() + [output[-500:]] * bool(code)
    finally:
        _end(second)
    lines = [line for line in told.splitlines() if "recorded" in line or "tracking" in line]
    return found, {"told": lines, "seconds_without_server": round(seconds, 1)}


def disk(case: Case, options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """Run inside the namespace that `main` has made: fill a small file system on the way."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(case.home)], check=True)
    sweep = case.start()
    told = "".join(harness.said(sweep, "trial 0 "))
    ballast = case.home / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    told += sweep.communicate(timeout=900)[0]
    before = {trial.number: trial.values for trial in case.trials() if trial.state.name in DONE}
    ballast.unlink()
    code, output = case.finish()
    after = {trial.number: trial.values for trial in case.trials()}
    found = case.problems() + [output[-500:]] * bool(code)
    found += ["a finished trial was lost"] * any(after[n] != values for n, values in before.items())
    # A little room may be left to some trials; then the sweep ends in order.
    if "No space left" not in told and "disk is full" not in told and sweep.returncode == 0:
        found.append(f"code {sweep.returncode}: {told[-1500:]}")
    found += [f"a traceback: {told[-1500:]}"] * ("Traceback" in told)
    return found, {"code": sweep.returncode, "finished_before": len(before), "told": told[-800:]}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _mlflow_server(home: Path, port: int) -> "subprocess.Popen[str]":
    store = f"sqlite:///{home}/server.db"
    arguments = ["--backend-store-uri", store, "--artifacts-destination", str(home / "artifacts")]
    arguments += [f"--port={port}", "--workers=1"]
    apart: dict[str, Any] = {"module": "mlflow", "cwd": home, "start_new_session": True}
    apart |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    changes = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = harness.start(home, "server", *arguments, changes=changes, **apart)

    def up() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(up)
    return process


def _end(process: "subprocess.Popen[str]") -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


CASES: dict[str, tuple[Any, int]] = {
    "kills": (kills, 20),
    "worker": (worker, 5),
    "journal": (together, 8),
    "sqlite": (together, 8),
    "postgresql": (together, 8),
    "closed": (closed, 2),
    "server": (server, 5),
    "disk": (disk, 5),
}


def run_case(name: str, options: argparse.Namespace) -> dict[str, Any]:
    function, n_trials = CASES[name]
    home = Path(tempfile.mkdtemp(prefix=f"sweep_{name}_"))
    storage = {"sqlite": f"sqlite:///{home}/s.db", "postgresql": options.postgresql}.get(name)
    if name == "postgresql" and storage is None:
        return {"skipped": "no --postgresql address given"}
    began = time.monotonic()
    try:
        problems, facts = function(Case(home, n_trials, storage), options)
    except (subprocess.TimeoutExpired, TimeoutError) as error:
        problems, facts = [f"{type(error).__name__}: {error}"], {}
    if not problems:
        shutil.rmtree(home, ignore_errors=True)
    return {"problems": problems, **facts, "wall_seconds": round(time.monotonic() - began)}


def run_apart(name: str, options: argparse.Namespace) -> Any:
    """Run a case in a user namespace, where a file system may be mounted."""
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        return {"skipped": "this machine allows no user namespace that mounts"}
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        arguments = ["--cases", name, "--inside", "--json", file.name]
        inside = [sys.executable, str(Path(__file__).absolute()), *arguments]
        subprocess.run(["unshare", "-Urm", *inside], stdout=subprocess.DEVNULL)
        return harness.read(Path(file.name))[name]


def main() -> None:
    flags = {"cases": ",".join(CASES), "kills": 10, "seed": 0, "json": Path}
    hidden = {
        "postgresql": (str, "address of an empty database"),
        "inside": (False, harness.HIDDEN),
    }
    options = harness.parser(__doc__, **flags, **hidden).parse_args()
    kept = options.json is not None and options.json.is_file() and options.json.stat().st_size
    results = json.loads(options.json.read_text()) if kept else {}
    for name in options.cases.split(","):
        apart = name == "disk" and not options.inside
        results[name] = run_apart(name, options) if apart else run_case(name, options)
        verdict = "skipped" if "skipped" in results[name] else "holds"
        verdict = "FAILS" if results[name].get("problems") else verdict
        print(f"{verdict}  {name}: {json.dumps(results[name])}", flush=True)
        harness.write(options.json, results)
    sys.exit(any(one.get("problems") for one in results.values()))


if __name__ == "__main__":
    main()
