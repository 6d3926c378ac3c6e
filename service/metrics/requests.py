"""What is asked for, by whom it may be, how it ends and how long it takes."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from service.metrics.registration import SECONDS, SHORT_SECONDS, TOKENS, Family

_RPC = ("grpc_type", "grpc_service", "grpc_method", "transport")


class RequestMetrics(Family):
    """Who asked for what, and how it ended.

    The names ``grpc_server_…`` are those of go-grpc-prometheus, so that stock dashboards work; the same calls over HTTP
    are counted there too, and ``transport`` tells the two apart.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def rpc_counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"grpc_server_{name}", text, (*_RPC, *labels), registry=registry)

        super().__init__(registry)
        self.rpc_started = rpc_counter("started", "RPCs started.")
        self.rpc_handled = rpc_counter("handled", "RPCs completed.", "grpc_code")
        self.rpc_messages_received = rpc_counter("msg_received", "Messages received.")
        self.rpc_messages_sent = rpc_counter("msg_sent", "Messages sent.")
        self.rpc_seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time from start to end of an RPC.",
            _RPC,
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = self.gauge("requests_in_flight", "RPCs being handled.")
        self.errors = self.counter("request_errors", "Texts or calls refused or failed, by reason.", "reason")
        self.sentences = self.counter("sentences", "Sentences translated.", "model")
        self.source_characters = self.counter("source_characters", "Code points of translated sources.", "model")
        self.source_tokens = self.counter(
            "source_tokens", "Tokens of translated sources, end of sentence included.", "model"
        )
        self.target_tokens = self.counter(
            "target_tokens", "Tokens of best hypotheses, end of sentence included.", "model"
        )
        self.finish_reasons = self.counter("finish_reason", "How the search for a sentence ended.", "model", "reason")
        self.source_length = self.histogram("source_length_tokens", "Tokens a source.", TOKENS, "model")
        self.target_length = self.histogram("target_length_tokens", "Tokens a best hypothesis.", TOKENS, "model")


class AccessMetrics(Family):
    """Who was not let in, and the files that say who is."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.refusals = self.counter("access_refusals", "Calls refused for who asked or how much, by reason.", "reason")
        self.credential_reloads = self.counter(
            "credential_reloads", "Times the credentials were read again (loaded, refused).", "result"
        )
        self.credentials_refused = self.gauge(
            "credentials_refused",
            "1 while the credentials file is of no use and those read before stay in force, else 0.",
        )
        self.certificate_reloads = self.counter(
            "certificate_reloads", "Times the certificate was read again (loaded, refused).", "result"
        )
        self.certificate_refused = self.gauge(
            "certificate_refused", "1 while the certificate's files are of no use and those read before stay, else 0."
        )
        self.certificate_expiry = self.gauge(
            "certificate_expiry_timestamp_seconds", "Unix time at which the certificate in use ends; 0 without TLS."
        )
        for result in ("loaded", "refused"):  # a first failure is seen only where there was a 0 before it
            self.credential_reloads.labels(result)
            self.certificate_reloads.labels(result)


class StageMetrics(Family):
    """Where the time of a request goes.

    Stages: ``admission``, ``tokenize``, ``queue``, ``encode``, ``decode``, ``explain``, ``detokenize``, ``serialize``.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.seconds: Histogram = self.histogram(
            "stage_duration_seconds", "Time a request spent in a stage.", SECONDS, "model", "stage"
        )
        self.request_seconds = self.histogram(
            "request_duration_seconds", "Time from accepting a text to its translation.", SECONDS, "model"
        )
        self.step_seconds = self.histogram(
            "decode_step_duration_seconds", "Time of one step of a batch.", SHORT_SECONDS, "model"
        )
        self.step_overhead = self.counter(
            "decode_step_overhead_seconds", "Time of decoding steps spent outside ONNX Runtime.", "model"
        )


class StreamMetrics(Family):
    """Documents, and translations told token by token."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.documents = self.counter(
            "documents", "Documents translated, by how they ended (ok, failed, cancelled).", "result"
        )
        self.document_sentences = self.counter(
            "document_sentences", "Sentences of documents, by how they ended (ok, refused).", "result"
        )
        self.first_token_seconds = self.histogram(
            "time_to_first_token_seconds", "Time from a text to the first token told of it.", SECONDS, "model"
        )
        self.open = self.gauge("streams_open", "Streams being served.")


class CacheMetrics(Family):
    """The cache of translations."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.hits = self.counter("cache_hits", "Texts whose translation was in the cache.")
        self.misses = self.counter("cache_misses", "Texts whose translation was not.")
        self.evictions = self.counter("cache_evictions", "Translations that made room for others.")
        self.entries = self.gauge("cache_entries", "Translations in the cache.")
        self.bytes = self.gauge("cache_bytes", "Size of the translations in the cache.")
