"""Runs models behind any server that speaks OpenAI's HTTP protocol: vLLM, trtllm-serve, NIM, Ollama, llama.cpp, cloud APIs."""
