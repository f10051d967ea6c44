"""The analysis of a study: what its hyperparameters did, and its page."""
