"""Requests and errors."""
