"""The adapters of the probes."""
