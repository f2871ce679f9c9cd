"""Self-test probes: whether the filters are really on."""
