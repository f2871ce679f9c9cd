"""What is found by patterns, checksums and the words beside a value: no model, no network."""
