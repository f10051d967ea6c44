"""Studies in their database and folder: trials, candidates, returns, identity."""
