"""The tasks, composed from all the other boxes: train, evaluate, analyse, power, one trial."""
