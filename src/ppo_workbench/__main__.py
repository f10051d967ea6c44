"""Run the command line: `python -m ppo_workbench`."""

from ppo_workbench.cli import main

if __name__ == "__main__":
    main()
