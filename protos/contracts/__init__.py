"""What is derived from the protos for other teams: AsyncAPI document, event catalogue, golden bytes."""
