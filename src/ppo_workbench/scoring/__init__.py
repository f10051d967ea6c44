"""Scoring: what a policy did (trace), its figures (metrics), statistics, audit and gates."""
