"""The two doors, gRPC and OpenAI-compatible HTTP, both thin over the same `Gateway`."""
