"""The LLM."""
