"""What redaction is: findings, arbitration, placeholders, vault, restoring, streams. Plain Python, no I/O."""
