"""Runs GGUF models with llama.cpp in this process, through xllamacpp."""
