"""Limits: the ledger of slot holders and waiters, and how runs of one pipeline overlap."""
