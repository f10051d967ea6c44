"""One training, from bars to a scored and stored model."""
