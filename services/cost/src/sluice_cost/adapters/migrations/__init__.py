"""The schema's history. Every step only adds: a ledger is never rebuilt."""
