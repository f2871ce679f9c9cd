"""The Prometheus metrics of this service; names and buckets of the generations follow OpenTelemetry's GenAI conventions."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_response_model")

# Buckets of the OpenTelemetry convention; the longer ones are those of TensorRT-LLM and vLLM, so that dashboards compare.
TIME_TO_FIRST_TOKEN = Histogram(
    "gen_ai_server_time_to_first_token_seconds",
    "From acceptance of a request to its first token.",
    _LABELS,
    buckets=(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80),
)
TIME_PER_OUTPUT_TOKEN = Histogram(
    "gen_ai_server_time_per_output_token_seconds",
    "Mean time between the tokens of a request after the first.",
    _LABELS,
    buckets=(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5),
)
REQUEST_DURATION = Histogram(
    "gen_ai_server_request_duration_seconds",
    "From acceptance of a request to its end; error_type is the reason of a refusal or failure, empty where it ended well.",
    (*_LABELS, "finish_reason", "error_type"),
    buckets=(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
QUEUE_TIME = Histogram(
    "sluice_inference_queue_seconds",
    "Waiting for a slot.",
    _LABELS,
    buckets=(0.001, 0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80),
)
PREFILL_TIME = Histogram(
    "sluice_inference_prefill_seconds",
    "Computing the prompt, as the engine tells; on TensorRT-LLM from the call to the first token.",
    _LABELS,
    buckets=(0.001, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)
BATCH_OCCUPANCY = Histogram(
    "sluice_inference_batch_occupancy",
    "Mean number of requests of the model that ran together with a request, itself included.",
    _LABELS,
    buckets=(1, 1.5, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256),
)
TOKENS = Counter(
    "sluice_inference_tokens_total",
    "Tokens processed, in buckets that never overlap.",
    ("gen_ai_response_model", "kind"),
)
CPU_SECONDS = Counter(
    "sluice_inference_attributed_cpu_seconds_total", "CPU time attributed to generations.", ("gen_ai_response_model",)
)
ACCELERATOR_SECONDS = Counter(
    "sluice_inference_attributed_accelerator_seconds_total",
    "Accelerator time attributed to generations.",
    ("gen_ai_response_model",),
)
RUNNING = Gauge("sluice_inference_running_requests", "Generations being computed.", ("gen_ai_response_model",))
QUEUED = Gauge("sluice_inference_queued_requests", "Generations waiting for a slot.", ("gen_ai_response_model",))
SHED = Counter("sluice_inference_shed_requests_total", "Requests refused because the queue was full.")
PROFILES_SKIPPED = Counter(
    "sluice_inference_profiles_skipped_total",
    "Measurements published without language and embedding: the worker was behind.",
)
ENGINE_FAULTS = Counter(
    "sluice_inference_engine_faults_total", "Failures of the engine that were not of its known kinds."
)
EVENTS_LOST = Counter("sluice_inference_events_lost_total", "Events that the outbox did not take.")
EMBEDDED_TEXTS = Counter("sluice_inference_embedded_texts_total", "Texts turned into vectors by Embed.")
UPSTREAM_RETRIES = Counter("sluice_inference_upstream_retries_total", "Requests to an upstream that were sent again.")
ESTIMATED_USAGE = Counter(
    "sluice_inference_estimated_usage_total",
    "Generations whose tokens were estimated because the backend gave no usage.",
    ("gen_ai_response_model",),
)
MODEL_READY = Gauge("sluice_inference_model_ready", "1 when the model answers.", ("gen_ai_response_model", "version"))
