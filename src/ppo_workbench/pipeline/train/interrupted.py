"""What Ctrl-C leaves of the tasks that do not say so themselves."""

from ppo_workbench.config import Task

AGAIN = "the same command begins anew"
LEFT = {
    Task.train: f"learning had not begun and nothing is written; {AGAIN}",
    Task.evaluate: f"no score is written, a recorded test access stays recorded; {AGAIN}",
    Task.paper: f"the replay is not scored, a recorded test access stays recorded; {AGAIN}",
    Task.audit: f"the model is as it was and there is no verdict; {AGAIN}",
    Task.verify: f"the model is as it was and there is no verdict; {AGAIN}",
    Task.export: f"the model is as it was, its exports may be missing; {AGAIN}",
    Task.analyse: f"the study is as it was, its page may be an older one; {AGAIN}",
    Task.report: f"the page may be missing or an older one; {AGAIN}",
    Task.power: f"nothing is written; {AGAIN}",
    Task.check_data: f"the file is as it was, no result is written; {AGAIN}",
    Task.compare: f"no cell had begun; {AGAIN}",
    Task.promote: f"nothing is promoted and nothing was trained; {AGAIN}",
    Task.rollback: "what was decided last holds, task=verify says which model reigns",
    Task.deliver_records: "what was not sent yet still waits; the same command goes on",
    Task.decide: f"no decision was written; {AGAIN}",
}


def what_is_left(task: Task) -> str:
    """Return the sentence for a task that was ended outside of what it can go on with."""
    return f"interrupted: {LEFT[task]}"
