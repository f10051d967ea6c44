"""Run the command line: `python -m ppo_workbench`."""

import sys

from ppo_workbench.starting import START_LINE


def main() -> None:
    """Say at once that the program has started, then import and run it."""
    with START_LINE.begin("starting"):
        try:
            from ppo_workbench.cli.main import main as run

            run()
        except KeyboardInterrupt:
            START_LINE.end()
            print("interrupted: nothing had begun", file=sys.stderr)
            sys.exit(130)


if __name__ == "__main__":
    main()
