"""What moderation needs from outside: model weights, policy files, SQLite, threads."""
