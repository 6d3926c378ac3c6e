"""The figures that a manifest carries for people and telemetry: whether they have the shape that readers rely on."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from bundle.decoding import Json

_LARGEST = 1e300
_MOST = 256  # test sets, metrics of one, histograms, buckets of one


def figure_faults(quality: Mapping[str, Json], reference: Mapping[str, Json]) -> Iterator[str]:
    """Yield one sentence for every figure that has another shape than the manifest promises.

    Args:
        quality: ``{test set: {metric: {"value": number, "signature": text}}}``, the signature where it has one.
        reference: ``{"histograms": {name: {"upper_bounds": [...], "counts": [...]}}}`` and notes; one count more than
            there are bounds, which rise. Empty where nothing was measured.
    """
    if len(quality) > _MOST:
        yield f"quality names {len(quality)} test sets; at most {_MOST} are read"
    for test_set, figures in quality.items():
        if not isinstance(figures, dict) or len(figures) > _MOST or not all(map(_is_figure, figures.values())):
            yield f"quality.{test_set} must hold a value, and perhaps a signature, for each of at most {_MOST} metrics"
    histograms = reference.get("histograms", {})
    if not isinstance(histograms, dict) or len(histograms) > _MOST:
        yield f"reference.histograms must be an object of at most {_MOST} histograms"
        return
    for name, histogram in histograms.items():
        if not _is_histogram(histogram):
            yield f"reference.histograms.{name} must have rising upper_bounds, and one count more than bounds"


def _is_figure(figure: Any) -> bool:
    return isinstance(figure, dict) and _is_number(figure.get("value")) and isinstance(figure.get("signature", ""), str)


def _is_histogram(histogram: Any) -> bool:
    if not isinstance(histogram, dict):
        return False
    bounds, counts = histogram.get("upper_bounds"), histogram.get("counts")
    if not isinstance(bounds, list) or not isinstance(counts, list) or not len(bounds) < len(counts) <= _MOST:
        return False
    numbers = all(map(_is_number, bounds)) and all(type(count) is int and 0 <= count < 2**53 for count in counts)
    return numbers and len(counts) == len(bounds) + 1 and all(a < b for a, b in itertools.pairwise(bounds))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST  # neither infinite nor a whole page of digits
