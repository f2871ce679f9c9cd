"""What the gateway decides, without any network, protobuf or framework."""
