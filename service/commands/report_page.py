"""A report over many sentences: how sure each translation is, what it may have left out, and where it repeats itself.

Axes: ``target`` words of the translation, ``source`` words of the source; the last column is the end of sentence.
"""

import base64
import html
import json
import math
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any

import numpy as np

from service.client import array
from service.pb import interlinear_pb2 as pb
from service.quality import mean_entropy, uncovered_ratio
from service.web import report_page

_IN_NATS = ("alignment_entropy",)  # the other measures are parts of 1
_SMALLEST = 0.005  # would print as 0 %
_MOST = 255  # what a byte of weight 1 holds: rounded to 0.002, and a tenth of the size


@dataclass(frozen=True)
class Measures:
    """What sentences are sorted by.

    Attributes:
        confidence: Geometric mean of the probabilities of the tokens, end of sentence included, 0 to 1.
        weakest_word: Smallest probability of a word of the translation given those before it, 0 to 1.
        uncovered_source: Share of source words that got less than 0.1 of attention from all target words together
            (``service.quality.uncovered_ratio``).
        delta_share: Sum of the shares of the five terms with a delta component; signed, so not bound to 0 to 1.
        repetition: ``repeated_ratio`` of the translation.
        alignment_entropy: Mean entropy in nats of the attention of the target words.
    """

    confidence: float
    weakest_word: float
    uncovered_source: float
    delta_share: float
    repetition: float
    alignment_entropy: float


def measure(response: pb.ExplainResponse) -> Measures:
    """Return the measures of an explanation that has alignment and shares."""
    hypothesis = response.hypothesis
    words = [word.text for word in hypothesis.target.words]
    weights = array(hypothesis.alignment.word_weights)[: len(words)]
    deltas = [term.share for term in response.decomposition.terms if pb.COMPONENT_DELTA in (term.encoder, term.decoder)]
    return Measures(
        confidence=math.exp(hypothesis.log_probability / max(len(hypothesis.token_log_probabilities), 1)),
        weakest_word=math.exp(min(hypothesis.word_log_probabilities, default=0.0)),
        uncovered_source=uncovered_ratio(weights),
        delta_share=sum(deltas),
        repetition=repeated_ratio(words),
        alignment_entropy=mean_entropy(weights) if words else 0.0,
    )


def repeated_ratio(words: Sequence[str]) -> float:
    """Return the share of pairs of neighboring words that stood there before, case aside; 0 without pairs.

    Example:
        >>> repeated_ratio("very very very good".split())
        0.3333333333333333
    """
    counts = Counter(pairwise(word.casefold() for word in words))
    return (counts.total() - len(counts)) / counts.total() if counts else 0.0


@contextmanager
def report_into(file: Path, title: str) -> Iterator["Report"]:
    """Yield a report to be filled, and write it into ``file`` at the end of the context: whole, or not at all.

    Raises:
        OSError: It cannot be written; said before the work begins if it can be known then.
    """
    part = file.with_name(f"{file.name}.part")
    try:
        with ExitStack() as opened:
            with _naming(file):
                page = opened.enter_context(part.open("w", encoding="utf-8"))
            report = Report(opened.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")), title)
            yield report
            with _naming(file):
                report.write(page)
        with _naming(file):
            part.replace(file)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Let what goes wrong name ``file``, which the caller knows, and not the part, which it does not."""
    try:
        yield
    except OSError as error:
        raise type(error)(f"{file} cannot be written: {error.strerror}") from None


class Report:
    """Collects explanations and refusals, line by line; of an explanation it keeps six numbers in memory."""

    def __init__(self, rows: IO[str], title: str) -> None:
        """Make an empty report.

        Args:
            rows: An empty file to keep the rows of the table in, until what stands above them is known.
            title: What is reported on; plain text.
        """
        self._rows = rows
        self._title = title
        self._measures: list[Measures] = []
        self._refusals: list[tuple[int, str]] = []
        self._model = "–"

    @property
    def refused(self) -> int:
        """Number of lines that could not be explained."""
        return len(self._refusals)

    def add(self, line: int, response: pb.ExplainResponse) -> None:
        """Add the explanation of a line, by its number from 1."""
        measures = measure(response)
        self._measures.append(measures)
        self._rows.write(_row(line, measures, response))
        self._model = f"{response.metadata.model} {response.metadata.model_version}"

    def refuse(self, line: int, reason: str) -> None:
        """Add a line that could not be explained, and why."""
        self._refusals.append((line, reason))

    def write(self, page: IO[str]) -> None:
        """Write all of it as one HTML page."""
        before, after = report_page(
            {
                "title": html.escape(self._title),
                "explained": str(len(self._measures)),
                "refused": str(self.refused),
                "model": html.escape(self._model),
                "median": _median(self._measures),
                "refusals": _refusals(self._refusals),
                "refused_hidden": "" if self._refusals else "hidden",
            }
        )
        page.write(before)
        self._rows.seek(0)
        copyfileobj(self._rows, page)
        page.write(after)


def record(response: pb.ExplainResponse) -> dict[str, Any]:
    """Return what the page needs of an explanation to show its words and its matrix.

    Places of words are half-open ranges of UTF-16 units; attention weights are bytes in base64, row after
    row, 255 for weight 1; a link is its target word, its source word and its weight.
    """
    hypothesis = response.hypothesis
    weights = np.rint(array(hypothesis.alignment.word_weights) * _MOST).clip(0, _MOST).astype(np.uint8)
    return {
        "source": _places(response.source),
        "target": _places(hypothesis.target),
        "forced": response.forced,
        "probabilities": [round(math.exp(value), 3) for value in hypothesis.word_log_probabilities],
        "weights": base64.b64encode(weights.tobytes()).decode(),
        "links": [[link.target_index, link.source_index, round(link.weight, 3)] for link in hypothesis.alignment.links],
    }


def _places(text: pb.TokenizedText) -> dict[str, Any]:
    return {"text": text.text, "places": [[word.span.start_utf16, word.span.end_utf16] for word in text.words]}


def _row(line: int, measures: Measures, response: pb.ExplainResponse) -> str:
    texts = "".join(
        f'<p dir="auto">{html.escape(text)}</p>' for text in (response.source.text, response.hypothesis.text)
    )
    data = json.dumps(record(response), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<tr data-line="{line}"><td class="told" data-value="{line}">{line}</td>'
        f'<td class="pair">{texts}<script type="application/json">{data}</script></td>{_cells(measures)}</tr>\n'
    )


def _cells(measures: Measures) -> str:
    return "".join(
        f'<td class="told" data-value="{value:.4f}">{_shown(field.name, value)}</td>'
        for field, value in zip(fields(measures), astuple(measures), strict=True)
    )


def _shown(name: str, value: float) -> str:
    """Return a value in the words of ``percent`` of the explorer's text.js, as HTML."""
    if name in _IN_NATS:
        return f"{value:.2f}"
    return "&lt;1 %" if 0 < value < _SMALLEST else f"{round(100 * value)} %".replace("-", "−")


def _median(measures: Sequence[Measures]) -> str:
    return _cells(Measures(*map(statistics.median, zip(*map(astuple, measures), strict=True)))) if measures else ""


def _refusals(refusals: Sequence[tuple[int, str]]) -> str:
    return "".join(f'<tr><td class="told">{line}</td><td>{html.escape(why)}</td></tr>\n' for line, why in refusals)
