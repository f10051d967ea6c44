"""What a model has to pass to be promoted."""
