"""The console: one web page a person."""
