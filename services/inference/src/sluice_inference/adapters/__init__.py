"""Everything outside: engines, model files, events, metrics."""
