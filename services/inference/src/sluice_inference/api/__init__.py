"""gRPC in: thin, between the messages and the domain."""
