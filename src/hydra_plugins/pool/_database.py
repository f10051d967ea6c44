"""Preloaded by the fork server where jobs open a database: the imports take half a second."""

from optuna.storages import RDBStorage

RDBStorage("sqlite://").engine.dispose()
