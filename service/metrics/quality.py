"""Cheap signs of bad translations, and of inputs unlike the reference corpus."""

from prometheus_client import CollectorRegistry

from service.metrics.registration import (
    ERROR,
    LENGTH_RATIO,
    LOG_PROBABILITY,
    NATS,
    RATIO,
    SIGNED_RATIO,
    Family,
)


class QualityMetrics(Family):
    """What translations and explanations tell of themselves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.token_log_probability = self.histogram(
            "token_log_probability_nats",
            "Mean log probability of a token, a best hypothesis.",
            LOG_PROBABILITY,
            "model",
        )
        self.confidence = self.histogram(
            "sequence_confidence_ratio",
            "Geometric mean of the probabilities of a best hypothesis's tokens.",
            RATIO,
            "model",
        )
        self.length_ratio = self.histogram("length_ratio", "Target tokens over source tokens.", LENGTH_RATIO, "model")
        self.copied_source = self.histogram(
            "copied_source_ratio", "Share of a best hypothesis's tokens that stand in its source.", RATIO, "model"
        )
        self.unknown_source_tokens = self.counter(
            "unknown_source_tokens", "Source tokens that the vocabulary lacks.", "model"
        )
        self.repeated_pairs = self.histogram(
            "repeated_pairs_ratio", "Share of neighboring tokens that stood there before, a hypothesis.", RATIO, "model"
        )
        self.repetition_suspected = self.counter(
            "repetition_suspected", "Best hypotheses that repeat a run of tokens.", "model"
        )
        self.alignment_entropy = self.histogram(
            "alignment_entropy_nats", "Mean entropy of an attention row, a sentence with alignment.", NATS, "model"
        )
        self.alignment_peak = self.histogram(
            "alignment_max_weight_ratio", "Mean largest weight of an attention row, a sentence.", RATIO, "model"
        )
        self.monotonicity = self.histogram(
            "alignment_monotonicity_ratio",
            "Share of steps whose attention does not go back, a sentence.",
            RATIO,
            "model",
        )
        self.uncovered_source = self.histogram(
            "alignment_uncovered_source_ratio",
            "Share of source tokens that got little attention in all.",
            RATIO,
            "model",
        )
        self.explanations = self.counter(
            "explanations",
            "Explanations made (own, forced, what_if, contrast, alternatives), by result (ok, refused).",
            "model",
            "view",
            "result",
        )
        self.share = self.histogram(
            "decomposition_share_ratio",
            "Softmax-aware share of a term, an explained sentence.",
            SIGNED_RATIO,
            "model",
            "term",
        )
        self.delta_share = self.histogram(
            "decomposition_delta_ratio", "Softmax-aware share of all terms with a delta.", SIGNED_RATIO, "model"
        )
        self.reconstruction_error = self.histogram(
            "decomposition_reconstruction_error_ratio",
            "Largest gap between scores and terms, relative.",
            ERROR,
            "model",
        )
        self.unseen_ratio = self.histogram(
            "decomposition_unseen_ratio",
            "Share of source tokens that the tables never saw, a sentence.",
            RATIO,
            "model",
        )
        self.unseen_tokens = self.counter(
            "decomposition_unseen_tokens", "Explained tokens that the tables never saw.", "model", "side"
        )


class GuardMetrics(Family):
    """Translations that the guard found suspicious."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.suspicions = self.counter("suspicions", "Suspicions of translations, by reason.", "model", "reason")
        self.retries = self.counter(
            "guard_retries", "Suspicious sentences decoded again (better, kept).", "model", "result"
        )


class DriftMetrics(Family):
    """How far what was served lately is from what the model was measured on."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.distance = self.gauge(
            "drift_distance",
            "Jensen-Shannon distance of a signal, lately, from the bundle's reference; 0 same, 1 nothing in common.",
            "model",
            "signal",
        )
