"""What insight answers over gRPC: one module a service."""
