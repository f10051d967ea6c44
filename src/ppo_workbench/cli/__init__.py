"""The command line: compose, check, run; one sentence for what is refused."""
