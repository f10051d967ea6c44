"""What figures of days and seeds allow to say; docs/statistics.md says which to trust when."""
