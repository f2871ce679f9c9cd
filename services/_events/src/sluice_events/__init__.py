"""Sluice's events for other teams: `async for event in consume(RequestCompleted, bootstrap=..., group=...)`."""
