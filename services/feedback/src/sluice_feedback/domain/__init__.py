"""Feedback in plain Python: what is good feedback, whose it is, when it counts."""
