"""A stand-in for the package `tensorrt_llm` where there is no GPU; see README.md."""
