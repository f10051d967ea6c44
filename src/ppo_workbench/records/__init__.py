"""What is kept of every run: tracking, the ledger of test accesses, promotion."""
