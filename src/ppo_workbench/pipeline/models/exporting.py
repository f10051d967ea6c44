"""Write a stored model for applications that have no Python or not this package."""

from ppo_workbench.config import Config
from ppo_workbench.delivery.artifact import load_artifact
from ppo_workbench.delivery.export import Exports, export_model
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.pipeline.models.stored import named_artifact


def export(config: Config, console: WorkbenchConsole | None = None) -> Exports:
    """Write `config.artifact` as NAME.onnx and NAME.torchscript.pt beside the model.

    Args:
        config: Names the model.
        console: Where to print.

    Raises:
        ConfigError: No model is named, or there is none of this name.
        ArtifactError: See `delivery.export.export_model`.
    """
    console = console or WorkbenchConsole()
    folder, name = named_artifact(config)
    exports = export_model(load_artifact(folder, name), folder)
    for kind, path in (("onnx", exports.onnx), ("torchscript", exports.torchscript)):
        console.show(f"{kind}: {path}", wrap=False)
    return exports
