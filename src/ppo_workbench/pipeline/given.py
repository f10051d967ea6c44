"""What a task is given: one value from the command line, or from Python, to the last function."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ppo_workbench import plugins
from ppo_workbench.config import Config, Raw
from ppo_workbench.config.secrets import masked
from ppo_workbench.delivery.describe import plain
from ppo_workbench.pipeline.models.stored import home_folder


@dataclass(frozen=True)
class Given:
    """A checked configuration with what its record needs.

    Attributes:
        config: The experiment.
        raw: The same with secrets unresolved, for the record.
        choices: Option chosen in each group of conf/, for the screen and the record.
        overrides: What was given beside the defaults, for the record.
        home: Where everything is read and written.
    """

    config: Config
    raw: Raw
    choices: Mapping[str, str] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    home: Path = field(default_factory=home_folder)

    def __post_init__(self) -> None:
        """Refuse a configuration with other plug-ins than those of this process."""
        plugins.use(self.config.plugins)

    @classmethod
    def of(cls, asked: "Config | Given") -> "Given":
        """Return what a configuration from Python is recorded as; another one as it is."""
        if isinstance(asked, Given):
            return asked
        return cls(asked, masked(plain(asdict(asked))))
