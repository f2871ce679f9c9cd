"""Sluice's redaction service: personal data out of texts, and back."""
