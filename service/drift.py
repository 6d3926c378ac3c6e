"""How far what was served lately is from the text that the model was measured on, signal by signal.

A bundle keeps the histograms of a reference corpus, in the bins of the service's metrics of the same names. What such
a metric gained lately makes a second histogram, in which every sentence fades as others follow it: they are weighed by
``exp(-age / 500)``, the age in sentences. The distance of the two is Jensen and Shannon's to base 2: 0 where they are
the same, 1 where they have nothing in common, and finite where a bin is empty, unlike the population stability index.

Nothing is done for it while sentences are translated: the metrics are read when they are scraped.

Source: Lin, Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37 (1991), eq. 4.1; that its
square root is a metric: Endres and Schindelin, IEEE Trans. Inf. Theory 49 (2003).
"""

import functools
import math
import threading

import numpy as np
from jaxtyping import Float
from prometheus_client import Histogram

from bundle.manifest import Manifest
from service.metrics import Metrics
from service.metrics.registration import PREFIX

_MEMORY = 500  # sentences after which one weighs 1/e
_LEAST = 100  # sentences seen; fewer differ from any reference by chance


class Lately:
    """What a histogram counted lately.

    Attributes:
        name: Of the metric, without our prefix.
        upper_bounds: Of the bins, without that of the last, which has none.
    """

    def __init__(self, histogram: Histogram) -> None:
        """Begin with what ``histogram``, one without labels or with all of them given, has counted up to now."""
        self._histogram = histogram
        self._lock = threading.Lock()  # two scrapers may come at once, each in a thread of its own
        (family,) = histogram.collect()
        bounds = [float(sample.labels["le"]) for sample in family.samples if sample.name.endswith("_bucket")]
        self.name = family.name.removeprefix(f"{PREFIX}_")
        self.upper_bounds = bounds[:-1]
        self._start = self._total = self._counted()
        self._faded = np.zeros_like(self._start)

    @property
    def sentences(self) -> float:
        """Sentences since the beginning, none of them faded."""
        return float((self._counted() - self._start).sum())

    def counts(self) -> Float[np.ndarray, "bin"]:
        """Return the sentences in each bin, older ones faded; at most ``_MEMORY`` in all."""
        with self._lock:
            total = self._counted()
            gained, self._total = total - self._total, total
            if news := float(gained.sum()):
                # As if they had come evenly mixed: so the sum is the same however often this is called.
                kept = math.exp(-news / _MEMORY)
                self._faded = self._faded * kept + gained * ((1.0 - kept) * _MEMORY / news)
            return self._faded

    def _counted(self) -> Float[np.ndarray, "bin"]:
        (family,) = self._histogram.collect()
        below = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
        return np.diff(np.array(below), prepend=0.0)


def watch(manifest: Manifest, metrics: Metrics) -> None:
    """Tell the distance of each signal for which the bundle has a reference in the service's bins."""
    quality, requests = metrics.quality, metrics.requests
    signals = {
        "source_length": requests.source_length,
        "target_length": requests.target_length,
        "log_probability": quality.token_log_probability,
        "alignment_entropy": quality.alignment_entropy,
        "uncovered_source": quality.uncovered_source,
        "delta_share": quality.delta_share,
        "unseen_tokens": quality.unseen_ratio,
        "repetition": quality.repeated_pairs,
    }
    references = manifest.reference.get("histograms", {})
    for signal, histogram in signals.items():
        lately = Lately(histogram.labels(manifest.qualified_name))
        reference = references.get(lately.name, {"counts": []})
        # A bundle of another version may have counted in other bins, or nothing.
        if any(reference["counts"]) and reference["upper_bounds"] == lately.upper_bounds:
            told = metrics.drift.distance.labels(manifest.qualified_name, signal)
            told.set_function(functools.partial(_drift, lately, np.array(reference["counts"], float)))


def _drift(lately: Lately, reference: Float[np.ndarray, "bin"]) -> float:
    counts = lately.counts()
    return distance(counts, reference) if lately.sentences >= _LEAST else math.nan  # no opinion yet


def distance(one: Float[np.ndarray, "bin"], other: Float[np.ndarray, "bin"]) -> float:
    """Return the Jensen-Shannon distance of two histograms, each with something in it: 0 to 1.

    >>> distance(np.array([1.0, 1.0]), np.array([3.0, 3.0])), distance(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    (0.0, 1.0)
    """
    p, q = one / one.sum(), other / other.sum()
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return math.sqrt(max(divergence, 0.0))


def _relative_entropy(p: Float[np.ndarray, "bin"], q: Float[np.ndarray, "bin"]) -> float:
    some = p > 0
    return float((p[some] * np.log2(p[some] / q[some])).sum())
