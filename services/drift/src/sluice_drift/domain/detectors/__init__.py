"""Detectors chosen by `make bench-drift` (docs/drift/README.md)."""
