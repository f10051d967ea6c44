"""Bars, sessions, splits, features and regimes: what is known about the market."""
