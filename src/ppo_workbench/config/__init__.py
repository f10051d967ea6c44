"""Typed configuration: what an experiment is, with ranges and cross-field checks.

YAML files under conf/ hold values, the dataclasses here hold types.  OmegaConf checks
keys and types, `validate_config` then checks every range and every rule between fields
and names the full key, what was given and what is allowed.
"""

from ppo_workbench.config.checks import DEFAULT_MINUTES as DEFAULT_MINUTES
from ppo_workbench.config.checks import unknown_key as unknown_key
from ppo_workbench.config.checks import validate_config as validate_config
from ppo_workbench.config.choices import AccountSource as AccountSource
from ppo_workbench.config.choices import ActionSet as ActionSet
from ppo_workbench.config.choices import Activation as Activation
from ppo_workbench.config.choices import Adjust as Adjust
from ppo_workbench.config.choices import Fill as Fill
from ppo_workbench.config.choices import ForbiddenAction as ForbiddenAction
from ppo_workbench.config.choices import Keep as Keep
from ppo_workbench.config.choices import Learner as Learner
from ppo_workbench.config.choices import LineFormat as LineFormat
from ppo_workbench.config.choices import ModelType as ModelType
from ppo_workbench.config.choices import PromotionProfile as PromotionProfile
from ppo_workbench.config.choices import Protocol as Protocol
from ppo_workbench.config.choices import Schedule as Schedule
from ppo_workbench.config.choices import ScoredSplit as ScoredSplit
from ppo_workbench.config.choices import Select as Select
from ppo_workbench.config.choices import Severity as Severity
from ppo_workbench.config.choices import Sizing as Sizing
from ppo_workbench.config.choices import Task as Task
from ppo_workbench.config.choices import TimestampConvention as TimestampConvention
from ppo_workbench.config.choices import Volume as Volume
from ppo_workbench.config.errors import ArtifactError as ArtifactError
from ppo_workbench.config.errors import BarsError as BarsError
from ppo_workbench.config.errors import ConfigError as ConfigError
from ppo_workbench.config.errors import DivergedError as DivergedError
from ppo_workbench.config.errors import Interrupted as Interrupted
from ppo_workbench.config.errors import PromotionError as PromotionError
from ppo_workbench.config.errors import WorkbenchError as WorkbenchError
from ppo_workbench.config.market import SOURCES_WITHOUT_FILE as SOURCES_WITHOUT_FILE
from ppo_workbench.config.market import CostsConfig as CostsConfig
from ppo_workbench.config.market import DataConfig as DataConfig
from ppo_workbench.config.market import FeaturesConfig as FeaturesConfig
from ppo_workbench.config.market import MarketConfig as MarketConfig
from ppo_workbench.config.market import SplitsConfig as SplitsConfig
from ppo_workbench.config.market import SyntheticConfig as SyntheticConfig
from ppo_workbench.config.ranges import settled as settled
from ppo_workbench.config.rules import HaltRule as HaltRule
from ppo_workbench.config.rules import MaskRule as MaskRule
from ppo_workbench.config.rules import RiskConfig as RiskConfig
from ppo_workbench.config.schema import CHANGES_ON_RESUME as CHANGES_ON_RESUME
from ppo_workbench.config.schema import Config as Config
from ppo_workbench.config.schema import Raw as Raw
from ppo_workbench.config.schema import flatten as flatten
from ppo_workbench.config.schema import known_keys as known_keys
from ppo_workbench.config.schema import section_of as section_of
from ppo_workbench.config.training import BudgetConfig as BudgetConfig
from ppo_workbench.config.training import CheckpointConfig as CheckpointConfig
from ppo_workbench.config.training import EnvConfig as EnvConfig
from ppo_workbench.config.training import ModelConfig as ModelConfig
from ppo_workbench.config.training import RewardConfig as RewardConfig
from ppo_workbench.config.training import TrackingConfig as TrackingConfig
