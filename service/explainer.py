"""The use case of explanation: attention of one translation, split into the terms it is made of.

Rows are target pieces (end of sentence included), columns are source pieces (end of sentence included), everywhere.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from bundle import tables as component_tables
from bundle.contents import Bundle
from bundle.decomposition import AttentionRecord, Decomposition, DecompositionWarning, decompose
from bundle.errors import TableMismatch
from bundle.manifest import TABLES_FILE, Manifest, TablesInfo
from bundle.tables import ComponentTables
from bundle.tokenizer import Tokenizer
from service.errors import (
    AttentionMissing,
    BundleRefused,
    OptionOutOfRange,
    StatisticsMissing,
    Unsupported,
)
from service.metrics import Metrics
from service.metrics.registration import SeriesOf
from service.quality import counted, meter_decomposition
from service.tracing import exemplar, record
from service.translation import Alignment, TracedTranslation, Translation, TranslationOptions
from service.translator import Translator

_SMALL = 1000  # weights; worked on for less than a millisecond, where others wait longer for a thread than for that


class WarningKind(Enum):
    """What a reader of an explanation should know before trusting it."""

    UNSEEN_TOKEN = "UNSEEN_TOKEN"
    POSITION_BEYOND_TABLES = "POSITION_BEYOND_TABLES"
    RECONSTRUCTION_ERROR_HIGH = "RECONSTRUCTION_ERROR_HIGH"
    UNKNOWN_TOKEN = "UNKNOWN_TOKEN"
    TARGET_CUT = "TARGET_CUT"
    CONSTANT_SCORES = "CONSTANT_SCORES"


@dataclass(frozen=True)
class ExplanationWarning:
    """One warning.

    Attributes:
        kind: What is wrong.
        side: ``source`` or ``target``, empty when it is about both.
        positions: Rows (target) or columns (source) it is about; empty when it is about all.
        message: For people: what it means for the figures.
    """

    kind: WarningKind
    side: str
    positions: tuple[int, ...]
    message: str


@dataclass(frozen=True)
class Explanation:
    """Why the attention of one hypothesis has the shape it has.

    Attributes:
        translation: What is explained, as its only hypothesis; the caller's own when ``forced``.
        forced: Whether the caller gave the target.
        attention_scores: Before softmax.
        attention_weights: After softmax; rows sum to 1.
        decomposition: Nine terms, shares, distances and reconstruction error.
        alignment: Words and pieces.
        warnings: What to know before trusting the figures; empty when all is well.
        tables: Which component tables were used.
    """

    translation: Translation
    forced: bool
    attention_scores: Float[np.ndarray, "target source"]
    attention_weights: Float[np.ndarray, "target source"]
    decomposition: Decomposition
    alignment: Alignment
    warnings: tuple[ExplanationWarning, ...]
    tables: TablesInfo

    @property
    def small(self) -> bool:
        """Whether what is done with it takes so little time that a thread would take longer to begin with it."""
        return self.attention_weights.size <= _SMALL


def load_tables(bundle: Path | Bundle, manifest: Manifest) -> ComponentTables | None:
    """Return the component tables of a bundle, read or in its folder; None when it has none.

    Raises:
        BundleRefused: The file is damaged, or is not the one the manifest describes.
    """
    if manifest.tables is None:
        return None
    try:
        tables = component_tables.read(
            bundle.files[TABLES_FILE] if isinstance(bundle, Bundle) else bundle / TABLES_FILE
        )
    except TableMismatch as error:
        raise BundleRefused(str(error)) from error
    found, said = (tables.id, tables.digest), (manifest.tables.id, manifest.tables.digest)
    if found != said:
        raise BundleRefused(
            f"{TABLES_FILE} holds tables {found[0]} ({found[1]}); the manifest says {said[0]} ({said[1]})"
        )
    shape, sizes = tables.encoder.input_driven.shape, manifest.sizes
    if shape != (sizes["vocabulary"], sizes["key"]):
        wanted = f"({sizes['vocabulary']}, {sizes['key']})"
        raise BundleRefused(f"{TABLES_FILE} is about vocabulary and key size {shape}; the manifest says {wanted}")
    return tables


class Explainer:
    """Explains the attention of one bundle's model; ``tables`` are None when the bundle has none."""

    def __init__(self, translator: Translator, tables: ComponentTables | None, metrics: Metrics) -> None:
        self._translator = translator
        self._manifest = translator.manifest
        self._tables = tables
        self._metrics = metrics
        self._series = SeriesOf(self._manifest.qualified_name)

    async def explain(
        self,
        text: str,
        target: str | None,
        options: TranslationOptions,
        deadline: float | None = None,
        hypothesis_index: int = 0,
    ) -> Explanation:
        """Return the explanation of ``target``, or of our own translation of ``text``.

        Args:
            text: The source, taken as one sentence.
            target: The translation to explain; None explains ours.
            options: How to decode, where the translation is ours.
            deadline: Time of the running loop's clock (``loop.time()``) at which the answer is no longer wanted.
            hypothesis_index: Which hypothesis of ours to explain, 0 being the best.

        Raises:
            AttentionMissing: The model has no attention.
            StatisticsMissing: The bundle has no component tables.
            Unsupported: The model's scores do not split into nine terms.
            InvalidRequest: As for ``Translator.translate``; the target is empty, too long or not text; or there is
                no such hypothesis.
            QueueFull, DeadlinePassed, Unavailable: As for ``Translator.translate``.
        """
        view = "own" if target is None else "forced"
        with counted(self._metrics.quality, self._manifest.qualified_name, view):
            tables = usable_tables(self._manifest, self._tables)
            wanted = 1 if target is not None else options.n_best
            if wanted > 0:  # or else the translator refuses that
                _check_index(hypothesis_index, wanted, "options.num_hypotheses says how many are looked for")
            traced = await self._translator.trace(text, target, options, deadline)
            found = len(traced.traces)
            _check_index(hypothesis_index, found, f"the search found {found} different hypotheses")
        began = time.perf_counter()
        traced = traced.only(hypothesis_index)
        if traced.size <= _SMALL:
            decomposition = decompose_traced(traced, tables, self._manifest)
        else:
            decomposition = await asyncio.to_thread(decompose_traced, traced, tables, self._manifest)
        decomposed = time.perf_counter() - began
        record("explain", decomposed)
        seconds = traced.translation.timings.explain + decomposed
        self._series(self._metrics.stages.seconds, "explain").observe(seconds, exemplar())
        meter_decomposition(self._metrics.quality, self._series, decomposition)
        return self._explanation(traced, target is not None, decomposition, seconds)

    def _explanation(
        self, traced: TracedTranslation, forced: bool, decomposition: Decomposition, seconds: float
    ) -> Explanation:
        translation = replace(traced.translation, timings=replace(traced.translation.timings, explain=seconds))
        best = translation.hypotheses[0]
        (trace,), info = traced.traces, self._manifest.tables
        assert best.alignment is not None and info is not None
        assert trace.attention_scores is not None and trace.attention_weights is not None
        return Explanation(
            translation=translation,
            forced=forced,
            attention_scores=trace.attention_scores,
            attention_weights=trace.attention_weights,
            decomposition=decomposition,
            alignment=best.alignment,
            warnings=warnings_about(traced, decomposition, self._translator.tokenizer),
            tables=info,
        )


def usable_tables(manifest: Manifest, tables: ComponentTables | None) -> ComponentTables:
    """Return ``tables`` if they take the scores of this model apart.

    Raises:
        AttentionMissing: The model has no attention.
        StatisticsMissing: The bundle has no component tables.
        Unsupported: The model's scores do not split into nine terms.
    """
    if manifest.score_kind == "none":
        raise AttentionMissing(
            f"model {manifest.bundle_id!r} ({manifest.architecture}) has no attention: there is nothing to explain"
        )
    if manifest.score_kind != "bilinear":
        raise Unsupported(
            f"model {manifest.bundle_id!r} ({manifest.architecture}) has {manifest.score_kind} attention, which "
            "does not split into nine terms; this version explains bilinear attention only."
        )
    if tables is None:
        raise StatisticsMissing(
            f"bundle {manifest.bundle_id!r} has no component tables, so its attention cannot be decomposed; "
            "export it again with a corpus to fit them on, or ask for the alignment alone."
        )
    return tables


def decompose_traced(traced: TracedTranslation, tables: ComponentTables, manifest: Manifest) -> Decomposition:
    """Return the nine terms behind the first hypothesis of ``traced``."""
    trace = traced.traces[0]
    assert trace.attention_scores is not None and trace.attention_queries is not None
    record = AttentionRecord(
        scores=trace.attention_scores,
        queries=trace.attention_queries,
        keys=traced.attention_keys,
        source_ids=traced.source_ids,
        target_ids=traced.target_ids[0],
    )
    return decompose(record, tables, manifest.decoder_token_offset, manifest.special_ids.bos)


def warnings_about(
    traced: TracedTranslation, decomposition: Decomposition | None, tokenizer: Tokenizer
) -> tuple[ExplanationWarning, ...]:
    """Return what to know before trusting figures of the first hypothesis, and of its decomposition if there is one."""
    of_tables = () if decomposition is None else _table_warnings(decomposition)
    return (*of_tables, *_token_warnings(traced, tokenizer))


def _check_index(index: int, count: int, why: str) -> None:
    if not 0 <= index < count:
        message = f"hypothesis_index is {index}; allowed is 0 to {count - 1}: {why}"
        raise OptionOutOfRange("hypothesis_index", message)


def _token_warnings(traced: TracedTranslation, tokenizer: Tokenizer) -> Iterator[ExplanationWarning]:
    for side, token_ids in (("source", traced.source_ids), ("target", traced.target_ids[0])):
        unknown = np.array([tokenizer.is_unknown(token_id) for token_id in token_ids])
        yield from _warning(WarningKind.UNKNOWN_TOKEN, side, unknown, "these pieces are outside the model's vocabulary")
    if traced.translation.hypotheses[0].finish_reason == "max_length":
        message = "the translation was cut at its longest length; it has no end of sentence"
        yield ExplanationWarning(WarningKind.TARGET_CUT, "target", (), message)


def _table_warnings(decomposition: Decomposition) -> Iterator[ExplanationWarning]:
    for side, components in (("source", decomposition.encoder), ("target", decomposition.decoder)):
        unseen = "the tables never saw, or too seldom, the token behind these: its input-driven component is 0"
        yield from _warning(WarningKind.UNSEEN_TOKEN, side, components.unseen, unseen)
        beyond = (
            "these positions are beyond the tables: the last well-counted one stands in for their temporal component"
        )
        yield from _warning(WarningKind.POSITION_BEYOND_TABLES, side, components.beyond_table, beyond)
    if DecompositionWarning.RECONSTRUCTION_ERROR in decomposition.warnings:
        message = (
            f"the terms miss the scores by {decomposition.reconstruction_error:.1e} of their size; do not trust them"
        )
        yield ExplanationWarning(WarningKind.RECONSTRUCTION_ERROR_HIGH, "", (), message)
    if DecompositionWarning.CONSTANT_SCORES in decomposition.warnings:
        message = "a row of scores is constant: there is no shape to explain, its shares are 1/9 each"
        yield ExplanationWarning(WarningKind.CONSTANT_SCORES, "target", (), message)


def _warning(
    kind: WarningKind, side: str, places: Bool[np.ndarray, "time"], message: str
) -> Iterator[ExplanationWarning]:
    """Yield one warning about the positions where ``places`` is true, if there are any."""
    if places.any():
        yield ExplanationWarning(kind, side, tuple(np.flatnonzero(places).tolist()), message)
