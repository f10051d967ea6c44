"""What a trading application needs to load a model and decide."""
