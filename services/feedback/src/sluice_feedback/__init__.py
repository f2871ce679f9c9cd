"""Sluice's feedback service: takes in what people say about answers, redacts it, stores and publishes it."""
