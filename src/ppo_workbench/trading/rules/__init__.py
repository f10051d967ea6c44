"""Mask rules: names and bits, parameters, what forbids an action, and rules of the market alone."""
