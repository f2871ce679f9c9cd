"""What a request costs, in plain Python: prices, charges, ledger entries, spend and holds."""
