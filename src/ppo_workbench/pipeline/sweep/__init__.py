"""One trial of a study, and the study's record."""
