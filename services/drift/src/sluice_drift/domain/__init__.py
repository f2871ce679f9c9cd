"""Windows, references and tests. Knows neither Faust nor Kafka nor protobuf."""
