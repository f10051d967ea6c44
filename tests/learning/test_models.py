"""Building the algorithm: torch's own Adam, without the imports that nobody needs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.learning.builders import learning_config, make_env

from ppo_workbench.config import ActionSet, BudgetConfig, ConfigError, Learner, ModelType
from ppo_workbench.learning.budget import Budget
from ppo_workbench.learning.models import HELD_AT_FIRST, build_model, check_device
from ppo_workbench.learning.native.algorithms import NativeMaskablePPO, NativePPO

ROOT = Path(__file__).parents[2]
TRAIN_NATIVE = """
import sys
from tests.learning.builders import learning_config, make_env
from tests.learning.test_training import Watcher
from ppo_workbench.learning.training import train_model

config = learning_config(budget__timesteps=256, budget__evaluations=1)
train_model(config, make_env(config), 400, Watcher().hooks())
print(*sys.modules, sep="\\n")
"""


@pytest.mark.parametrize("kind", list(ModelType))
def test_native_learner_has_the_adam_that_sb3_would_have_made(kind: ModelType) -> None:
    models = [
        build_model(config.model, make_env(config), Budget(BudgetConfig(timesteps=256)), 0)
        for config in (
            learning_config(model__type=kind, model__learner=learner)
            for learner in (Learner.native, Learner.sb3)
        )
    ]
    ours, theirs = (model.policy.optimizer for model in models)
    assert isinstance(models[0], NativeMaskablePPO | NativePPO)
    assert type(ours) is type(theirs) is torch.optim.Adam
    assert ours.defaults == theirs.defaults
    settings = [
        {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
        for optimizer in (ours, theirs)
    ]
    assert settings[0] == settings[1]
    assert len(ours.param_groups) == 1
    parameters = list(models[0].policy.parameters())
    assert all(a is b for a, b in zip(ours.param_groups[0]["params"], parameters, strict=True))


@pytest.mark.parametrize("kind", list(ModelType))
@pytest.mark.parametrize("learner", list(Learner))
@pytest.mark.parametrize("action_set", list(ActionSet))
def test_policy_that_has_learned_nothing_holds(
    kind: ModelType, learner: Learner, action_set: ActionSet
) -> None:
    config = learning_config(
        model__type=kind,
        model__learner=learner,
        env__action_set=action_set,
        env__exposure_levels=[-1.0, -0.6, -0.2, 0.0, 0.2, 0.6, 1.0],
    )
    env = make_env(config)
    model = build_model(config.model, env, Budget(BudgetConfig(timesteps=256)), 0)
    observations = torch.as_tensor(env.reset())
    hold = torch.full((len(observations),), env.batch.market.space.hold)

    with torch.no_grad():
        _, log_probs, _ = model.policy.evaluate_actions(observations, hold)

    assert log_probs.exp().numpy() == pytest.approx(HELD_AT_FIRST, abs=0.02)


@pytest.mark.parametrize("device", ["cuda:99", "cuad", "mps:9"])
def test_device_that_is_not_there_is_refused_in_one_sentence(device: str) -> None:
    sentence = f"^model.device={device}: torch can use no such device on this machine, write "
    with pytest.raises(ConfigError, match=sentence):
        check_device(device)
    config = learning_config(model__device=device)
    with pytest.raises(ConfigError, match=sentence):
        build_model(config.model, make_env(config), Budget(BudgetConfig(timesteps=256)), 0)


def test_devices_that_are_there_are_taken() -> None:
    check_device("cpu")
    check_device("auto")


def test_native_training_imports_no_torch_compiler() -> None:
    result = subprocess.run(
        [sys.executable, "-c", TRAIN_NATIVE], cwd=ROOT, check=True, capture_output=True, text=True
    )
    imported = set(result.stdout.split())
    assert "torch.optim" in imported
    assert imported.isdisjoint({"torch._dynamo", "sympy", "mlflow", "matplotlib"})
