"""Keys from a file, and the services that are asked."""
