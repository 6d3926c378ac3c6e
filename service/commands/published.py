"""Alignment error rates that others have published on well-known gold sets, to stand beside a measured one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedSet:
    """A gold set and what has been published on it.

    Attributes:
        name: What it is called.
        alignment_error_rates: By system, from 0 to 1; two directions of one system are two.
        source: Where they stand.
    """

    name: str
    alignment_error_rates: dict[str, float]
    source: str


_LILT = "github.com/lilt/alignment-scripts"
_AWESOME = "github.com/neulab/awesome-align"

# By the numbers of sentence pairs and of sure links, which tell them apart in whatever file they come.
_SETS = {
    (447, 4038): PublishedSet(
        "English-French Hansards (NAACL 2003)",
        {
            "fast_align, English to French": 0.164,
            "fast_align, French to English": 0.159,
            "fast_align, grow-diag": 0.105,
            "MGIZA, English to French": 0.080,
            "MGIZA, French to English": 0.098,
            "MGIZA, grow-diag": 0.059,
            "eflomal": 0.082,
            "awesome-align, multilingual BERT as it is": 0.056,
            "awesome-align, fine-tuned": 0.041,
        },
        f"{_LILT}, {_AWESOME}",
    ),
    (248, 6198): PublishedSet(
        "Romanian-English (WPT 2005)",
        {
            "fast_align, Romanian to English": 0.338,
            "fast_align, English to Romanian": 0.355,
            "fast_align, grow-diag": 0.321,
            "MGIZA, Romanian to English": 0.287,
            "MGIZA, English to Romanian": 0.322,
            "MGIZA, grow-diag-final": 0.264,
            "eflomal": 0.251,
            "awesome-align, multilingual BERT as it is": 0.279,
            "awesome-align, fine-tuned": 0.207,
        },
        f"{_LILT}, {_AWESOME}",
    ),
    (450, 11238): PublishedSet(
        "Chinese-English (Tsinghua)",
        {
            "fast_align": 0.381,
            "MGIZA": 0.351,
            "eflomal": 0.287,
            "awesome-align, multilingual BERT as it is": 0.181,
            "awesome-align, fine-tuned": 0.134,
        },
        _AWESOME,
    ),
}


def published_on(sentences: int, sure_links: int) -> PublishedSet | None:
    """Return what is known of the gold set of this size, if it is one of the well-known."""
    return _SETS.get((sentences, sure_links))
