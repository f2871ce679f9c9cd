"""Judges text that flows to and from language models against versioned policies, and keeps the evidence."""
