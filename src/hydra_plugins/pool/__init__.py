"""Hydra launcher `pool`; modules that begin with `_` are not scanned by Hydra."""
