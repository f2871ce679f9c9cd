"""Runs Hugging Face and ModelOpt checkpoints with TensorRT-LLM >= 1.2.1 (its PyTorch backend) in this process.

Written to the 1.2.1 release's API as recorded in tests/support/tensorrt_llm_double/contract.json; it has run against the double that is
built from that record, and never yet against the real package on a GPU.
"""
