"""Errors that a user can mend, and the end that a user asked for."""


class WorkbenchError(Exception):
    """Base of the errors that a user can mend: rule, value, remedy in one sentence."""


class ConfigError(WorkbenchError):
    """A configuration key, type, range or combination is not allowed."""


class BarsError(WorkbenchError):
    """A price file or series breaks a rule; the message names the first bad row."""


class ArtifactError(WorkbenchError):
    """A model file is missing, damaged, foreign or would be overwritten."""


class DivergedError(ArtifactError):
    """A training ended in weights that are no numbers."""


class PromotionError(WorkbenchError):
    """A promotion step cannot be carried out."""


class Interrupted(Exception):
    """Ctrl-C ended training early; the model so far was kept and recorded.

    Raised as `Interrupted(value)`, value being what `pipeline.run` would have returned.
    """

    @property
    def value(self) -> float:
        """The objective of the kept model."""
        return float(self.args[0])
