"""The double's face: what `import tensorrt_llm` finds when this folder's parent is on the path."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from tensorrt_llm.llmapi.llm import LLM
from tensorrt_llm.sampling_params import SamplingParams

__version__ = "1.2.1"
IS_DOUBLE = True

__all__ = ["LLM", "SamplingParams"]
