"""Arguments of the LLM, from the contract."""

from tensorrt_llm_double.contract import strict_model_of

_MODULE = "tensorrt_llm.llmapi.llm_args"
CudaGraphConfig = strict_model_of(_MODULE, "CudaGraphConfig")
KvCacheConfig = strict_model_of(_MODULE, "KvCacheConfig")
SchedulerConfig = strict_model_of(_MODULE, "SchedulerConfig")
TorchLlmArgs = strict_model_of(_MODULE, "TorchLlmArgs")
