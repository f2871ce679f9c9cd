"""What a generation is and how one is conducted, in plain Python: no gRPC, no engine."""
