"""What moderation means: normalisation, windows, policies, verdicts; no transport, no files."""
