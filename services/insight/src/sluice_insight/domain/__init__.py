"""Parts in, points out. Knows neither gRPC nor Kafka nor protobuf."""
