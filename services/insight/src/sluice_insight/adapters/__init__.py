"""What talks to the outside: events in, Prometheus out."""
