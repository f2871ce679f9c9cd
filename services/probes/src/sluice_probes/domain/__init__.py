"""The domain of the probes."""
