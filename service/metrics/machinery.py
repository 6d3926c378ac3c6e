"""The queue and the running batches, the engine, the models, the memory."""

from prometheus_client import CollectorRegistry

from service.metrics.registration import RATIO, SECONDS, SHORT_SECONDS, TOKENS, Family

_REJECTIONS = ("queue_full", "queue_tokens", "deadline")


class BatchMetrics(Family):
    """The queue and the running batches."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.queue_depth = self.gauge("queue_depth", "Sentences waiting for a place in a batch.", "model")
        self.queue_capacity = self.gauge("queue_capacity", "Sentences that may wait.", "model")
        self.queue_tokens = self.gauge("queue_tokens", "Source tokens of the sentences that wait.", "model")
        self.running = self.gauge("running_sentences", "Sentences being decoded.", "model")
        self.rejections = self.counter(
            "queue_rejections",
            f"Sentences refused, by reason ({', '.join(_REJECTIONS)}).",
            "model",
            "reason",
        )
        self.size = self.histogram("batch_size", "Sentences in a decoding step.", TOKENS, "model")
        self.padding = self.histogram(
            "batch_padding_ratio", "Share of source positions that are padding, a step.", RATIO, "model"
        )
        self.executions = self.counter(
            "batch_executions", "Calls of a graph for a batch (encoder, decoder_step).", "model", "graph"
        )
        self.deadline_drops = self.counter(
            "deadline_drops", "Sentences dropped at their deadline (queue, decode).", "model", "where"
        )
        self.cancellations = self.counter(
            "cancellations", "Sentences whose caller went away (queue, decode).", "model", "where"
        )
        self.steps_saved = self.counter(
            "cancelled_steps_saved",
            "Decoding steps not made, at most, for a deadline or a caller that went away.",
            "model",
        )


class EngineMetrics(Family):
    """Whether a model's engine does its work."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.healthy = self.gauge("engine_healthy", "1 while the engine answers, 0 while it is rebuilt.", "model")
        self.rebuilds = self.counter(
            "engine_rebuilds", "Engines given up and loaded anew (stuck, failing).", "model", "reason"
        )


class RuntimeMetrics(Family):
    """The model, the device and ONNX Runtime."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.build = self.gauge(
            "build_info", "1, with the versions of this process.", "version", "onnxruntime", "python"
        )
        self.model = self.gauge(
            "model_info", "1, with the identity of a loaded model.", "model", "version", "digest", "precision", "tables"
        )
        self.model_loaded = self.gauge(
            "model_loaded_timestamp_seconds", "Unix time at which the model was ready.", "model"
        )
        self.model_load_seconds = self.gauge(
            "model_load_duration_seconds", "Time to verify, load and warm up.", "model"
        )
        self.provider = self.gauge(
            "execution_provider_active",
            "1, with the device asked for and the provider that runs the model.",
            "model",
            "device",
            "provider",
        )
        self.run_seconds = self.histogram(
            "session_run_duration_seconds", "Time of one ONNX Runtime call.", SHORT_SECONDS, "model", "graph"
        )


class ModelMetrics(Family):
    """Which models come and go, and what they take."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.loads = self.counter("model_loads", "Bundles that were to be loaded (loaded, refused).", "result")
        self.refused = self.gauge("bundles_refused", "Bundles in the folder of models that are not loaded for a fault.")
        self.load_seconds = self.histogram(
            "bundle_load_duration_seconds", "Time from finding a bundle to its model being ready.", SECONDS
        )
        self.loaded = self.gauge("models_loaded", "Models that answer requests.")
        self.bytes = self.gauge("models_bytes", "Size of the files of all loaded models.")
        self.budget_bytes = self.gauge("models_budget_bytes", "Most that it may be; 0 for no limit.")
        for result in ("loaded", "refused"):  # a first failure is seen only where there was a 0 before it
            self.loads.labels(result)


class MemoryMetrics(Family):
    """The memory ceiling; ``process_resident_memory_bytes`` is what is compared with it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.limit_bytes = self.gauge(
            "memory_limit_bytes", "Resident size above which new work is refused; 0 for no limit."
        )
        self.unsent_bytes = self.gauge("unsent_reply_bytes", "Replies that their callers have not taken yet.")
