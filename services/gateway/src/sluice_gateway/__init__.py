"""The caller's door: authenticates, guards, routes, streams, and says what happened."""
