"""The aggregation: plain values in, plain window states out. Knows neither Faust nor Kafka nor protobuf."""
