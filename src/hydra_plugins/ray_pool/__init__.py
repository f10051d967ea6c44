"""Hydra launcher `ray_pool`; modules that begin with `_` are not scanned by Hydra."""
