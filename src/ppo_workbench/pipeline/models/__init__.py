"""What is done with a stored model: score, verify, export, decide, trade on paper."""
