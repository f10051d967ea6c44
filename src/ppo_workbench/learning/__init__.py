"""Learning: vectorised environments, algorithms, training and its console."""
