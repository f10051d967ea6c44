"""`task=deliver_records`: send what a store of records did not take while it was away."""

from ppo_workbench.config import Config
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.pipeline.models.stored import home_folder
from ppo_workbench.records.spool import Delivery, spool_folder
from ppo_workbench.records.tracking import deliver_records as deliver


def deliver_records(config: Config, console: WorkbenchConsole | None = None) -> Delivery:
    """Send what waits in `mlruns/spool` for the store of `config.tracking`, and say what.

    Raises:
        TrackingError: The store cannot be reached.
    """
    console, home = console or WorkbenchConsole(), home_folder()
    found = deliver(config.tracking, home)
    console.show(
        f"records complete now: {len(found.delivered)}, still waiting: {len(found.waiting)}"
    )
    if found.waiting:
        console.show(
            f"for another store, or refused by this one: {', '.join(found.waiting)} in "
            f"{spool_folder(home)}; name their store with tracking.uri=URI",
            wrap=False,
        )
    return found
