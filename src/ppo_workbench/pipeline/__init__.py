"""The tasks, composed from all the other boxes: train, evaluate, analyse, power, one trial."""

from ppo_workbench.pipeline.check_data import check_data as check_data
from ppo_workbench.pipeline.compare import compare as compare
from ppo_workbench.pipeline.fitting import checkpoint_folder as checkpoint_folder
from ppo_workbench.pipeline.outcome import Outcome as Outcome
from ppo_workbench.pipeline.power import power as power
from ppo_workbench.pipeline.stored import backtest as backtest
from ppo_workbench.pipeline.stored import find_artifact as find_artifact
from ppo_workbench.pipeline.stored import home_folder as home_folder
from ppo_workbench.pipeline.stored import open_with_test as open_with_test
from ppo_workbench.pipeline.stored import stored_policy as stored_policy
from ppo_workbench.pipeline.tasks import analyse as analyse
from ppo_workbench.pipeline.tasks import default_name as default_name
from ppo_workbench.pipeline.tasks import evaluate as evaluate
from ppo_workbench.pipeline.tasks import run as run
from ppo_workbench.pipeline.tasks import train as train
