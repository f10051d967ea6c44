"""Every command of the specification has its row in docs/asked.md, and every row runs."""

import re
import shlex
from pathlib import Path

import mlflow
import pytest
from tests.e2e.workbench import BUDGET, Workbench

from ppo_workbench.cli.main import FLAGS_OF_OLD, compose
from ppo_workbench.config import ModelType

ROOT = Path(__file__).parents[2]
MODULE = "python -m ppo_workbench"
OLD_MODULE = "python -m models.ppo_trainer"
FOLDERS = {ModelType.maskable_ppo: "trained_models", ModelType.ppo: "baselines"}


def _rows() -> list[tuple[str, str]]:
    """Read the page's table: (the specification's flags, the arguments here)."""
    text = (ROOT / "docs" / "asked.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`|]*)` \| `([^`|]*)` \|$", text, re.MULTILINE)
    return [(old, new) for old, new in rows if new.startswith(MODULE)]


ROWS = _rows()
COMMANDS = [new.removeprefix(MODULE).strip() for _, new in ROWS]
EXPERIMENTS = ["experiment=quick_validation", "experiment=exploration", "experiment=production"]


def test_page_holds_all_commands_of_the_specification() -> None:
    assert len(ROWS) == 18
    assert len(set(ROWS)) == 18


@pytest.mark.parametrize(("old", "new"), ROWS, ids=[new for _, new in ROWS])
def test_row_translates_flag_by_flag(old: str, new: str) -> None:
    words = shlex.split(old.removeprefix(OLD_MODULE))
    pairs = zip(words[::2], words[1::2], strict=True)
    expected = {f"{FLAGS_OF_OLD[flag]}={value}" for flag, value in pairs}

    assert set(shlex.split(new.removeprefix(MODULE))) == expected


@pytest.mark.parametrize("arguments", [*COMMANDS, *EXPERIMENTS])
def test_command_of_the_page_trains_and_leaves_its_pair(arguments: str, shared: Workbench) -> None:
    overrides = shlex.split(arguments)
    config = compose([*BUDGET, *overrides])

    result = shared.train("tracking.enabled=false", "overwrite=true", *overrides)

    assert result.code == 0, result.err
    first = result.out.splitlines()[0]
    masked = config.model.type is ModelType.maskable_ppo
    assert first.startswith("⭐ PRIMARY FOCUS MODEL" if masked else "📊 comparison")
    (path,) = re.findall(r"^model: (.*)\.pth$", result.out, re.MULTILINE)
    assert Path(path).parent == shared.home / FOLDERS[config.model.type]
    assert config.output in (None, Path(path).name)
    metadata = shared.metadata(Path(path).name, FOLDERS[config.model.type])
    assert metadata["status"] == "candidate"
    assert metadata["model_type"] == config.model.type.value
    assert metadata["config"]["model"]["learning_rate"] == config.model.learning_rate
    assert metadata["config"]["budget"]["minutes"] == config.budget.minutes
    assert metadata["training"]["timesteps"] == 256


def test_console_without_a_terminal_prints_plain_lines(shared: Workbench) -> None:
    out = shared.train("tracking.enabled=false", "output=plain", "overwrite=true").out

    assert "\x1b" not in out
    assert re.search(r"^training: 256 timesteps$", out, re.MULTILINE)
    assert re.search(r"100%\) \| .* \| 256 of 256 steps, .*validation Sharpe", out)
    for line in ("home", "model file", "record", "test split: closed", "buy-and-hold", "threshold"):
        assert re.search(rf"^\s*{line}", out, re.MULTILINE), line


def test_run_is_complete_in_mlflow(trained: Workbench) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{trained.home}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("ppo_workbench")
    assert experiment is not None

    (run,) = client.search_runs([experiment.experiment_id])

    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.params["model.learning_rate"] == "0.03"
    assert run.data.params["risk.drawdown.flatten_frac"] == "0.04"
    assert run.data.params["model.gamma"] == "${env.gamma}"
    assert run.data.tags["model_type"] == "maskable_ppo"
    assert run.data.tags["status"] == "candidate"
    metrics = run.data.metrics
    for key in (
        "rollout/ep_rew_mean",
        "time/fps",
        "time/passes",
        "train/approx_kl",
        "train/explained_variance",
        "mask/any",
        "mask/volatility",
        "reward/log_return",
        "reward/variance",
        "rules/passive",
        "action/BUY",
        "validation/sharpe_annual",
        "final_train/sharpe_annual",
        "final_validation/max_drawdown_frac",
        "compare_validation/buy-and-hold/sharpe_annual",
    ):
        assert key in metrics, key
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in history] == [128, 256, 384, 512, 640, 768]
    looks = client.get_metric_history(run.info.run_id, "validation/sharpe_annual")
    assert [point.step for point in looks] == [256, 512, 768]


def test_run_holds_plots_console_log_and_artefact(trained: Workbench) -> None:
    (folder,) = (trained.home / "mlruns" / "artifacts").iterdir()
    files = {str(p.relative_to(folder / "artifacts")) for p in folder.rglob("*") if p.is_file()}

    assert {"model/first.pth", "model/first-metadata.json", "console.log"} <= files
    plots = {f"plots/{name}.png" for name in ("equity", "drawdown", "masks", "rewards")}
    assert plots <= files
    log = (folder / "artifacts" / "console.log").read_text(encoding="utf-8")
    assert "PRIMARY FOCUS MODEL" in log
    assert "test split: closed" in log
    stored = (folder / "artifacts" / "model" / "first.pth").read_bytes()
    assert stored == (trained.home / "trained_models" / "first.pth").read_bytes()


def test_every_logged_key_is_in_the_glossary(trained: Workbench) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{trained.home}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("ppo_workbench")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    glossary = set(re.findall(r"`([^`\s]+)`", (ROOT / "docs" / "metrics.md").read_text("utf-8")))
    scorecard = r"^(validation|final_train|final_validation)/"

    for key in run.data.metrics:
        name = re.sub(r"^(mask|blocked_share)/(?!any$).*", r"\1/RULE", re.sub(scorecard, "", key))
        name = re.sub(r"^(reward)/.*", r"\1/COMPONENT", name)
        name = re.sub(r"^(action)/.*", r"\1/NAME", name)
        name = re.sub(r"^(violations|rejections)/.*", r"\1/SEVERITY", name)
        name = re.sub(r"^compare_validation/.*/", "compare_validation/POLICY/", name)
        assert name in glossary or key in glossary, key
