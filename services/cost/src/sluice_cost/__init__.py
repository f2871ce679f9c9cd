"""Sluice's cost service: prices every request, keeps the ledger, answers what was spent."""
