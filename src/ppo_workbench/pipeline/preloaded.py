"""Preloaded by the server of processes: what each job would do first, once for all of them.

At the first call of a kernel numba reads its tables, and at the first bars exchange_calendars
is imported: 0.6 seconds of a core, as much as a tiny training.  No torch here: its threads do
not survive a fork.
"""

from contextlib import suppress

import ppo_workbench.pipeline.tasks  # noqa: F401
from ppo_workbench.config import SyntheticConfig
from ppo_workbench.market.synthetic import generate

with suppress(Exception):  # a job meets what is wrong again, and tells it
    generate(SyntheticConfig(sessions=10))
