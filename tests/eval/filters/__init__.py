"""The measuring of the two filters: evaluation sets with gold spans, scores, and tables."""
