"""What a local Apache Kafka is made of: pinned artifacts, their hashes, its configuration."""
