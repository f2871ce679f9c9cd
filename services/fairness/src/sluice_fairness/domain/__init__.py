"""Counting by group and comparing groups, without Kafka or Faust."""
