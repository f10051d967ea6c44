"""The programs that sweep_overhead.py measures: trials whose training sleeps and logs like one.

As a program with `stock` first it is the stock pattern: Hydra's own sweeper and a launcher, a
script that logs to MLflow itself.  Otherwise it is this project's command line.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

import ppo_workbench.pipeline.sweep.trial as trial_module
from ppo_workbench.cli import main as cli
from ppo_workbench.cli.options import CONF
from ppo_workbench.config import Config
from ppo_workbench.records.studies.session import TrialSession

PAUSE_SECONDS, EVALUATIONS, METRICS = 0.1, 3, 60  # a real trial: 8 evaluations, 57 keys each


def rows() -> list[dict[str, Any]]:
    values = {f"train/key_{k}": 0.5 * k for k in range(METRICS)}
    return [{"step": k, "seed": None, "metrics": values} for k in range(EVALUATIONS)]


class Sleeping:
    """Sleep where a trial trains; report, write and tell as one does."""

    def __init__(
        self, config: Config, raw: Mapping[str, Any], session: TrialSession, folder: Path
    ) -> None:
        self._config, self._session, self._folder = config, session, folder

    def run(self) -> float:
        began, value = time.time(), self._config.model.learning_rate
        for step in range(EVALUATIONS):
            time.sleep(PAUSE_SECONDS)
            self._session.report(value, step)
        ended = time.time()
        result = json.dumps({"state": "COMPLETE"})
        (self._folder / "result.json").write_text(result, encoding="utf-8")
        lines = "".join(json.dumps(row) + "\n" for row in rows())
        (self._folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
        facts = {"began": began, "ended": ended, "cpu": time.process_time(), "seeds": [0]}
        self._session.complete([value], facts)
        return value


trial_module._Run = Sleeping  # type: ignore[assignment,misc]


def stock(cfg: DictConfig) -> float:
    """Train and log as MLflow's and Hydra's documentation show it."""
    import mlflow

    from ppo_workbench.records.tracking import flatten_params

    home = Path(os.environ["PPO_WORKBENCH_HOME"])
    mlflow.set_tracking_uri(f"sqlite:///{home}/stock.db")
    with mlflow.start_run():
        mlflow.log_params(flatten_params({"model": OmegaConf.to_container(cfg.model)}))
        for row in rows():
            time.sleep(PAUSE_SECONDS)
            mlflow.log_metrics(row["metrics"], row["step"])
        mlflow.log_metric("objective", cfg.model.learning_rate)
        mlflow.log_dict(OmegaConf.to_container(cfg), "config.json")  # type: ignore[arg-type]
    with (home / "stock.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps([time.time(), time.process_time()]) + "\n")
    return float(cfg.model.learning_rate)


if __name__ == "__main__":
    if sys.argv[1:2] == ["stock"]:
        del sys.argv[1]
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(stock)()
    else:
        cli.main()
