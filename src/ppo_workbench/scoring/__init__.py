"""Scoring: what a policy did (trace), its figures (metrics) and pictures (plots)."""
