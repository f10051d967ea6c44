"""The examples of docs/deploy.md run as they stand, where the research stack is not installed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.delivery.models import save_model, settings, small_model
from tests.delivery.test_light_imports import HEAVY

from ppo_workbench.delivery.artifact import load_artifact
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.export import export_onnx
from ppo_workbench.delivery.golden import find_golden
from ppo_workbench.delivery.messages import Account, bar_messages
from ppo_workbench.delivery.metadata import Metadata, Status
from ppo_workbench.market.synthetic import generate

DOCS = Path(__file__).parents[2] / "docs" / "deploy.md"
NAME = "maskable_production_final"
ONNX = ("onnx", "onnxruntime")
# An import of what is not installed fails as here.
_HIDE = "import sys\nsys.modules.update(dict.fromkeys({names!r}))\n"


def _examples() -> tuple[str, str, str]:
    package, decider, onnx = re.findall(
        r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL
    )
    return package, decider, onnx


def _run(
    folder: Path,
    code: str,
    hidden: tuple[str, ...],
    *arguments: str,
    given: str | None = None,
    end: tuple[int, str] = (0, ""),
) -> str:
    command = [sys.executable, "-c", _HIDE.format(names=hidden) + code, *arguments]
    done = subprocess.run(
        command, cwd=folder, input=given, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == end
    return done.stdout


def test_deploy_package_example_finds_and_activates_the_champion(tmp_path: Path) -> None:
    save_model(tmp_path / "models", NAME, status=Status.champion)
    save_model(tmp_path / "models", "other")
    (tmp_path / "models" / "half.pth").write_bytes(b"")

    printed = _run(tmp_path, _examples()[0], HEAVY).splitlines()

    assert printed[:2] == [f"found {NAME} champion None", "found other candidate None"]
    assert printed[2].startswith("not usable: ")
    assert printed[3] == f"active {NAME} SELL HOLD BUY"


def test_deploy_decider_example_orders_what_the_decider_decides_and_goes_on(
    tmp_path: Path,
) -> None:
    save_model(tmp_path / "models", NAME, status=Status.champion)
    decider = Decider(load_artifact(tmp_path / "models", NAME))
    warm = decider.artifact.metadata.warmup_bars
    bars = list(bar_messages(generate(settings().data.synthetic).bars.slice(0, warm + 300)))
    history = [bar.model_dump_json() for bar in bars[:warm]]
    (tmp_path / "history.jsonl").write_text("\n".join(history))
    account = Account(cash=100_000.0, shares=0.0)
    messages = [{"bar": bar, "account": account} for bar in bars[warm:]]
    lines = [
        json.dumps({key: value.model_dump(mode="json") for key, value in message.items()})
        for message in messages
    ]

    halves = ["\n".join(lines[:170]), "\n".join(lines[170:])]
    printed = "".join(_run(tmp_path, _examples()[1], HEAVY, given=half) for half in halves)

    decider.warm_up(bars[:warm])
    decisions = [decider.decide(bar, account) for bar in bars[warm:]]
    expected = [f"order {x.order_quantity} {x.action}" for x in decisions if x.order_quantity]
    assert len(expected) > 5
    assert printed.splitlines() == expected


def test_deploy_onnx_example_decides_without_this_package(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    save_model(tmp_path / "models", NAME)
    artifact = load_artifact(tmp_path / "models", NAME)
    export_onnx(artifact, tmp_path / "models" / f"{NAME}.onnx")
    golden = find_golden(small_model()[0])
    assert golden is not None
    scaler = artifact.metadata.normalization
    inside = np.flatnonzero((np.abs(golden.observation) < 7.9).all(axis=1))

    hidden = (*(set(HEAVY) - set(ONNX)), "ppo_workbench", "torch")
    for row in (inside[0], inside[-1]):
        raw = golden.observation[row] * np.array(scaler.stds) + np.array(scaler.means)
        given = json.dumps(raw.tolist()), json.dumps(golden.mask[row].tolist())
        printed = _run(tmp_path, _examples()[2], tuple(hidden), NAME, *given)
        assert printed.strip() == artifact.metadata.action_names[golden.action[row]]

    sidecar = tmp_path / "models" / f"{NAME}-metadata.json"  # of a champion exported never
    text = sidecar.read_text(encoding="utf-8").replace(artifact.metadata.pth_sha256, "0" * 64)
    sidecar.write_text(text, encoding="utf-8")
    sentence = f"{NAME}.onnx and its metadata are of different models; export {NAME} anew\n"
    _run(tmp_path, _examples()[2], tuple(hidden), NAME, *given, end=(1, sentence))


def test_deploy_examples_are_about_twenty_lines() -> None:
    assert all(len(code.splitlines()) <= 22 for code in _examples())


def test_deploy_every_metadata_field_is_explained() -> None:
    table = DOCS.read_text(encoding="utf-8").split("## Metadata, field by field")[1]
    missing = [name for name in Metadata.model_fields if f"`{name}`" not in table]
    assert missing == []
