"""Every metric of the service, built once on a given registry, in five families.

Units are base units and stand at the end of the name. Labels are bounded: ``model`` is a loaded bundle's id, all others
take their values from a fixed list in the code. Never a user's text, address or key. Metrics named ``grpc_server_…``
keep the names of go-grpc-prometheus, so that stock dashboards work; the same calls over HTTP are counted there too, and
``transport`` tells the two apart.
"""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SHORT_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_RATIO = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_SIGNED_RATIO = (-0.5, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5)
_LENGTH_RATIO = (0.25, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0)
_NATS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
_LOG_PROBABILITY = (-10.0, -7.0, -5.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.7, -0.5, -0.3, -0.2, -0.1, -0.05, -0.01)
_ERROR = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_RPC = ("grpc_type", "grpc_service", "grpc_method", "transport")


class RequestMetrics:
    """Who asked for what, and how it ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str, namespace: str = "interlinear") -> Counter:
            return Counter(name, text, labels, namespace=namespace, registry=registry)

        self.rpc_started = counter("grpc_server_started", "RPCs started.", *_RPC, namespace="")
        self.rpc_handled = counter("grpc_server_handled", "RPCs completed.", *_RPC, "grpc_code", namespace="")
        self.rpc_messages_received = counter("grpc_server_msg_received", "Messages received.", *_RPC, namespace="")
        self.rpc_messages_sent = counter("grpc_server_msg_sent", "Messages sent.", *_RPC, namespace="")
        self.rpc_seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time from start to end of an RPC.",
            _RPC,
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge("interlinear_requests_in_flight", "RPCs being handled.", registry=registry)
        self.errors = counter("request_errors", "Texts or calls refused or failed, by reason.", "reason")
        self.sentences = counter("sentences", "Sentences translated.", "model")
        self.source_characters = counter("source_characters", "Code points of translated sources.", "model")
        self.source_tokens = counter(
            "source_tokens", "Tokens of translated sources, end of sentence included.", "model"
        )
        self.target_tokens = counter("target_tokens", "Tokens of best hypotheses, end of sentence included.", "model")
        self.finish_reasons = counter("finish_reason", "How the search for a sentence ended.", "model", "reason")
        self.source_length = _histogram(registry, "source_length_tokens", "Tokens a source.", _TOKENS, "model")
        self.target_length = _histogram(registry, "target_length_tokens", "Tokens a best hypothesis.", _TOKENS, "model")


class StageMetrics:
    """Where the time of a request goes.

    Stages: ``tokenize``, ``queue``, ``encode``, ``decode``, ``explain``, ``detokenize``, ``serialize``.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seconds = _histogram(
            registry, "stage_duration_seconds", "Time a request spent in a stage.", _SECONDS, "model", "stage"
        )
        self.request_seconds = _histogram(
            registry, "request_duration_seconds", "Time from accepting a text to its translation.", _SECONDS, "model"
        )
        self.step_seconds = _histogram(
            registry, "decode_step_duration_seconds", "Time of one step of a batch.", _SHORT_SECONDS, "model"
        )
        self.step_overhead = Counter(
            "interlinear_decode_step_overhead_seconds",
            "Time of decoding steps spent outside ONNX Runtime.",
            ["model"],
            registry=registry,
        )


class BatchMetrics:
    """The queue and the running batches."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, ["model", *labels], namespace="interlinear", registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["model"], namespace="interlinear", registry=registry)

        self.queue_depth = gauge("queue_depth", "Sentences waiting for a place in a batch.")
        self.queue_capacity = gauge("queue_capacity", "Sentences that may wait.")
        self.running = gauge("running_sentences", "Sentences being decoded.")
        self.rejections = counter("queue_rejections", "Sentences refused, by reason (queue_full).", "reason")
        self.size = _histogram(registry, "batch_size", "Sentences in a decoding step.", _TOKENS, "model")
        self.padding = _histogram(
            registry, "batch_padding_ratio", "Share of source positions that are padding, a step.", _RATIO, "model"
        )
        self.executions = counter("batch_executions", "Calls of a graph for a batch (encode, step).", "graph")
        self.deadline_drops = counter("deadline_drops", "Sentences dropped at their deadline (queue, decode).", "where")
        self.cancellations = counter("cancellations", "Sentences whose caller went away (queue, decode).", "where")
        self.steps_saved = counter(
            "cancelled_steps_saved", "Decoding steps not made, at most, for a deadline or a caller that went away."
        )


class RuntimeMetrics:
    """The model, the device and ONNX Runtime."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, namespace="interlinear", registry=registry)

        self.build = gauge("build_info", "1, with the versions of this process.", "version", "onnxruntime", "python")
        self.model = gauge(
            "model_info", "1, with the identity of a loaded model.", "model", "version", "digest", "precision", "tables"
        )
        self.model_loaded = gauge("model_loaded_timestamp_seconds", "Unix time at which the model was ready.", "model")
        self.model_load_seconds = gauge("model_load_duration_seconds", "Time to verify, load and warm up.", "model")
        self.provider = gauge(
            "execution_provider_active", "1 for the provider that runs the model.", "model", "provider"
        )
        self.run_seconds = _histogram(
            registry, "session_run_duration_seconds", "Time of one ONNX Runtime call.", _SHORT_SECONDS, "model", "graph"
        )


class QualityMetrics:
    """Cheap signs of bad translations and of inputs unlike the reference corpus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, ["model", *labels], namespace="interlinear", registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return _histogram(registry, name, text, buckets, "model", *labels)

        self.token_log_probability = histogram(
            "token_log_probability_nats", "Mean log probability of a token, a best hypothesis.", _LOG_PROBABILITY
        )
        self.confidence = histogram(
            "sequence_confidence_ratio", "Geometric mean of the probabilities of a best hypothesis's tokens.", _RATIO
        )
        self.length_ratio = histogram("length_ratio", "Target tokens over source tokens.", _LENGTH_RATIO)
        self.unknown_source_tokens = counter("unknown_source_tokens", "Source tokens that the vocabulary lacks.")
        self.repetition_suspected = counter("repetition_suspected", "Best hypotheses that repeat a run of tokens.")
        self.alignment_entropy = histogram(
            "alignment_entropy_nats", "Mean entropy of an attention row, a sentence with alignment.", _NATS
        )
        self.uncovered_source = histogram(
            "alignment_uncovered_source_ratio", "Share of source tokens that got little attention in all.", _RATIO
        )
        self.explanations = counter(
            "explanations",
            "Explanations made (own, forced, what_if, contrast, alternatives), by result (ok, refused).",
            "view",
            "result",
        )
        self.share = histogram(
            "decomposition_share_ratio", "Softmax-aware share of a term, an explained sentence.", _SIGNED_RATIO, "term"
        )
        self.delta_share = histogram(
            "decomposition_delta_ratio", "Softmax-aware share of all terms with a delta.", _SIGNED_RATIO
        )
        self.reconstruction_error = histogram(
            "decomposition_reconstruction_error_ratio", "Largest gap between scores and terms, relative.", _ERROR
        )
        self.unseen_tokens = counter(
            "decomposition_unseen_tokens", "Explained tokens that the tables never saw.", "side"
        )


@dataclass(frozen=True)
class Metrics:
    """All metrics of one process, or of one test: a registry of its own shares nothing."""

    registry: CollectorRegistry
    requests: RequestMetrics
    stages: StageMetrics
    batches: BatchMetrics
    runtime: RuntimeMetrics
    quality: QualityMetrics

    @classmethod
    def on(cls, registry: CollectorRegistry) -> "Metrics":
        """Return the metrics, registered on ``registry``.

        Raises:
            ValueError: ``registry`` has metrics of these names already.
        """
        return cls(
            registry,
            RequestMetrics(registry),
            StageMetrics(registry),
            BatchMetrics(registry),
            RuntimeMetrics(registry),
            QualityMetrics(registry),
        )


def _histogram(
    registry: CollectorRegistry, name: str, text: str, buckets: tuple[float, ...], *labels: str
) -> Histogram:
    return Histogram(name, text, labels, namespace="interlinear", buckets=buckets, registry=registry)
