"""The independent audit: every fill of a trace against every rule, without the masks."""
