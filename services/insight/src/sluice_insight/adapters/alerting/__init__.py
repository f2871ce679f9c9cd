"""Alerts from rules in files, remembered on their topic, delivered to receivers."""
