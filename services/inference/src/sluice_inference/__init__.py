"""Runs language and embedding models behind one gRPC contract."""
