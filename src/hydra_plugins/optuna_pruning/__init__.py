"""Hydra sweeper `optuna_pruning`; modules that begin with `_` are not scanned by Hydra."""
