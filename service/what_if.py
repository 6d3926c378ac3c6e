"""The use case WhatIf: a translation made again with its attention or its source changed, beside the one without.

Rows are target pieces (end of sentence included), columns are source pieces (end of sentence included), everywhere.
"""

import asyncio
import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64

from bundle.decomposition import COMPONENTS
from bundle.intervention import AttentionChange
from bundle.tables import ComponentTables
from bundle.tokenizer import TokenizedText, Word
from service.errors import InvalidRequest, OptionOutOfRange
from service.explainer import ExplanationWarning, decompose_traced, usable_tables, warnings_about
from service.metrics import Metrics
from service.quality import counted
from service.scheduler import together
from service.translation import PreparedText, TracedTranslation, TranslatedHypothesis, TranslationOptions
from service.translator import Translator

_REPLACED, _MASKED, _GIVEN = (
    f"intervention.{name}" for name in ("replaced_source_words", "masked_source_words", "given_attention")
)
_HAS_WORDS = "the source has no more words"


@dataclass(frozen=True)
class GivenRow:
    """A row of attention to give; exactly one of ``flat``, ``source_word`` and ``weights`` says which.

    Attributes:
        target_token: The emitted token whose row it is, from 0; None for every row that has none of its own.
        flat: The same weight on everything that is not masked.
        source_word: All weight on this word of the source as changed, in equal parts on its pieces.
        weights: One a source piece, then that of the end of sentence; scaled to sum to 1.
    """

    target_token: int | None
    flat: bool = False
    source_word: int | None = None
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Intervention:
    """What to change; nothing, by default.

    Attributes:
        kept_terms: ``(encoder, decoder)`` components of the terms that scores are made of; empty keeps all nine.
        masked_source_words: Words of the source as changed that get no attention.
        replaced_source_words: ``(word of the source as sent, text to write there)``; an empty text takes the word out.
        given_attention: Rows that replace the model's own.
    """

    kept_terms: tuple[tuple[str, str], ...] = ()
    masked_source_words: tuple[int, ...] = ()
    replaced_source_words: tuple[tuple[int, str], ...] = ()
    given_attention: tuple[GivenRow, ...] = ()


@dataclass(frozen=True)
class WhatIfAnswer:
    """A translation without and with a change.

    Attributes:
        source: As sent.
        changed_source: As changed; None unless words were replaced.
        baseline: What ``Translate`` answers.
        changed: The translation with the change; its alignment shows the weights that were used.
        baseline_words_changed: Words of ``baseline`` that ``changed`` does not have at that place.
        changed_words: Words of ``changed`` that are new.
        log_probability_change: That of the tokens of ``baseline``, with the change minus without, in nats.
        token_log_probability_changes: The same of each token.
        attention_distance: Mean of ``row_attention_distances``.
        row_attention_distances: Total variation, at each token of ``baseline``, between attention with and without the
            change, both reading ``baseline``; over the words of ``source`` and the end of sentence.
        warnings: What to know before trusting the figures of ``changed``.
    """

    source: TokenizedText
    changed_source: TokenizedText | None
    baseline: TranslatedHypothesis
    changed: TranslatedHypothesis
    baseline_words_changed: tuple[int, ...]
    changed_words: tuple[int, ...]
    log_probability_change: float
    token_log_probability_changes: tuple[float, ...]
    attention_distance: float
    row_attention_distances: tuple[float, ...]
    warnings: tuple[ExplanationWarning, ...]


class WhatIf:
    """Answers what-if questions with one bundle; ``tables`` are None when the bundle has none."""

    def __init__(self, translator: Translator, tables: ComponentTables | None, metrics: Metrics) -> None:
        self._translator = translator
        self._tables = tables
        self._metrics = metrics

    async def answer(
        self, text: str, options: TranslationOptions, intervention: Intervention, deadline: float | None = None
    ) -> WhatIfAnswer:
        """Return the best translation of ``text`` with and without ``intervention``, and what differs.

        Args:
            text: The source, taken as one sentence.
            options: How to decode, both times.
            intervention: What to change.
            deadline: Time of the running loop's clock (``loop.time()``) at which the answer is no longer wanted.

        Raises:
            InvalidRequest: As for ``Translator.translate``; or the intervention does not fit the source.
            AttentionMissing: The model has no attention.
            StatisticsMissing: Terms are to be kept, and the bundle has no component tables.
            Unsupported: Terms are to be kept, and the model's scores do not split into nine terms.
            InterventionUnsupported: Attention is to be changed, and the bundle's graphs take none from outside.
            QueueFull, DeadlinePassed, Unavailable: As for ``Translator.translate``.
        """
        with counted(self._metrics.quality, self._translator.manifest.qualified_name, "what_if"):
            return await self._answer(text, options, intervention, deadline)

    async def _answer(
        self, text: str, options: TranslationOptions, intervention: Intervention, deadline: float | None
    ) -> WhatIfAnswer:
        plain = await self._translator.prepare(text, None, options)
        changed_source, places = await self._replaced(plain, intervention.replaced_source_words)
        changed = self._with_change(changed_source or plain, intervention).following()
        decode = self._translator.trace_prepared
        baseline = await decode(plain, deadline)
        # Both are scored on one path, so that what differs is the change and not how it was computed.
        scored = (each.following().scoring(baseline.target_ids[0]) for each in (plain, changed))
        result, forced, changed_forced = await together(decode(each, deadline) for each in (changed, *scored))
        before, after = baseline.translation.hypotheses[0], result.translation.hypotheses[0]
        gone, new = _different([word.text for word in before.target.words], [word.text for word in after.target.words])
        changes = _token_scores(changed_forced) - _token_scores(forced)
        distances = 0.5 * np.abs(
            _by_word(changed_forced, changed.source, places)
            - _by_word(forced, plain.source, [_place(word) for word in plain.source.words])
        ).sum(axis=1)
        return WhatIfAnswer(
            source=plain.source,
            changed_source=changed_source.source if changed_source else None,
            baseline=before,
            changed=after,
            baseline_words_changed=gone,
            changed_words=new,
            log_probability_change=float(changes.sum()),
            token_log_probability_changes=tuple(changes.tolist()),
            attention_distance=float(distances.mean()),
            row_attention_distances=tuple(distances.tolist()),
            warnings=await self._warnings(result, changed),
        )

    async def _replaced(
        self, plain: PreparedText, replacements: Sequence[tuple[int, str]]
    ) -> tuple[PreparedText | None, list[tuple[int, int]]]:
        """Return the source with words replaced, None if there are none, and where the words of ``plain`` are in it."""
        words = plain.source.words
        places = [_place(word) for word in words]
        if not replacements:
            return None, places
        _check_count(_REPLACED, len(replacements), len(words), _HAS_WORDS)
        for index, (word, _) in enumerate(replacements):
            _check_word(f"{_REPLACED}[{index}].source_word", word, len(words))
        _check_once(_REPLACED, [word for word, _ in replacements], lambda word: f"word {word} is replaced twice")
        text = plain.source.text
        for word, replacement in sorted(replacements, reverse=True):  # from the end: what stands before keeps its place
            text, places = _exchanged(text, places, word, replacement)
        try:
            return await self._translator.prepare(text, None, plain.options), places
        except InvalidRequest as error:
            raise type(error)(_REPLACED, f"with these words replaced, {error}") from error

    def _with_change(self, prepared: PreparedText, intervention: Intervention) -> PreparedText:
        if not (intervention.kept_terms or intervention.masked_source_words or intervention.given_attention):
            return prepared
        left_out, tables = np.zeros((3, 3), bool), None
        if intervention.kept_terms:
            tables = usable_tables(self._translator.manifest, self._tables)
            left_out = _left_out(intervention.kept_terms)
        source = prepared.source
        masked = np.zeros(len(source.pieces) + 1, bool)
        _check_count(_MASKED, len(intervention.masked_source_words), len(source.words), _HAS_WORDS)
        for index, word in enumerate(intervention.masked_source_words):
            _check_word(f"{_MASKED}[{index}]", word, len(source.words))
            masked[list(source.words[word].piece_indices)] = True
        given = intervention.given_attention
        most_rows = self._translator.manifest.limits.max_target_tokens
        _check_count(_GIVEN, len(given), most_rows + 1, "one a token of the longest translation, and one for the rest")
        for index, row in enumerate(given):
            _check_row(f"{_GIVEN}[{index}]", row, source, most_rows)
        _check_once(_GIVEN, [row.target_token for row in given], _said_twice)
        rows = {row.target_token: _weights(row, source, masked) for row in given}
        every_row = rows.pop(None, None)
        own_rows = {step: weights for step, weights in rows.items() if step is not None}
        change = AttentionChange(left_out, masked, own_rows, every_row, tables)
        return replace(prepared, job=replace(prepared.job, change=change))

    async def _warnings(self, result: TracedTranslation, changed: PreparedText) -> tuple[ExplanationWarning, ...]:
        decomposition = None
        if changed.job.change is not None and changed.job.change.tables is not None:
            manifest = self._translator.manifest
            decomposition = await asyncio.to_thread(decompose_traced, result, changed.job.change.tables, manifest)
        return warnings_about(result, decomposition, self._translator.tokenizer)


def _token_scores(traced: TracedTranslation) -> Float64[np.ndarray, "target"]:
    return np.array(traced.translation.hypotheses[0].token_log_probabilities, np.float64)


def _place(word: Word) -> tuple[int, int]:
    return word.span.start_code_point, word.span.end_code_point


def _exchanged(
    text: str, places: list[tuple[int, int]], word: int, replacement: str
) -> tuple[str, list[tuple[int, int]]]:
    """Return ``text`` with ``replacement`` in the place of ``word``, and where all words are then.

    Nothing in its place takes one of the white spaces around the word away too, so that its neighbors stay as far apart
    as they were; that before it, where a mark or the end of the text follows. Neighbors that it kept apart get a space.
    """
    start, end = places[word]
    before, after = text[:start], text[end:]
    if not replacement and after[:1].isspace() and (not before or before[-1].isspace()):
        after = after.lstrip()
    elif not replacement and not after[:1].isalnum():
        before = before.rstrip()
    elif not replacement and before[-1:].isalnum():
        before += " "
    start, shift = len(before), len(before) + len(replacement) + len(after) - len(text)
    moved = [(begin + shift, finish + shift) for begin, finish in places[word + 1 :]]
    return before + replacement + after, [*places[:word], (start, start + len(replacement)), *moved]


def _by_word(
    traced: TracedTranslation, source: TokenizedText, places: Sequence[tuple[int, int]]
) -> Float64[np.ndarray, "target word"]:
    """Return attention weights summed over the pieces at each of ``places`` in the source; last, all others."""
    weights = traced.traces[0].attention_weights
    assert weights is not None
    columns = np.zeros((weights.shape[1], len(places) + 1))
    for index, piece in enumerate(source.pieces):
        if piece.word_index is not None:
            home = source.words[piece.word_index].span if piece.zero_width else piece.span
            columns[index, _home(places, home.start_code_point)] = 1.0
    columns[-1, -1] = 1.0
    columns[:, -1] = 1.0 - columns[:, :-1].sum(axis=1)
    return weights.astype(np.float64) @ columns


def _home(places: Sequence[tuple[int, int]], code_point: int) -> int:
    """Return which of ``places`` holds ``code_point``; one past the last if none does."""
    return next((index for index, (start, end) in enumerate(places) if start <= code_point < end), len(places))


def _different(before: Sequence[str], after: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the indices of what either list has and the other has not at that place."""
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    kept_before = {block.a + offset for block in blocks for offset in range(block.size)}
    kept_after = {block.b + offset for block in blocks for offset in range(block.size)}
    return (
        tuple(index for index in range(len(before)) if index not in kept_before),
        tuple(index for index in range(len(after)) if index not in kept_after),
    )


def _left_out(kept_terms: Sequence[tuple[str, str]]) -> Bool[np.ndarray, "3 3"]:
    left_out = np.ones((3, 3), bool)
    for encoder, decoder in kept_terms:
        left_out[COMPONENTS.index(encoder), COMPONENTS.index(decoder)] = False
    return left_out


def _weights(row: GivenRow, source: TokenizedText, masked: Bool[np.ndarray, "source"]) -> Float64[np.ndarray, "source"]:
    if row.flat:
        weights = (~masked).astype(np.float64)
    elif row.source_word is not None:
        weights = np.zeros(len(masked))
        weights[list(source.words[row.source_word].piece_indices)] = 1.0
    else:
        weights = np.array(row.weights, np.float64)
    return np.asarray(weights / weights.sum())


def _check_count(field: str, count: int, most: int, why: str) -> None:
    if count > most:
        raise OptionOutOfRange(field, f"{field} has {count} items; allowed is up to {most}: {why}")


def _check_word(field: str, word: int, count: int) -> None:
    if not 0 <= word < count:
        raise OptionOutOfRange(
            field, f"{field} is {word}; the source has {count} words, so allowed is 0 to {count - 1}"
        )


def _check_once(field: str, values: Sequence[int | None], say: Callable[[int | None], str]) -> None:
    seen: set[int | None] = set()
    for index, value in enumerate(values):
        if value in seen:
            raise OptionOutOfRange(f"{field}[{index}]", f"{say(value)}; say it once")
        seen.add(value)


def _said_twice(target_token: int | None) -> str:
    return f"attention of {'every row' if target_token is None else f'row {target_token}'} is given twice"


def _check_row(field: str, row: GivenRow, source: TokenizedText, most_target_tokens: int) -> None:
    if row.flat + (row.source_word is not None) + bool(row.weights) != 1:
        raise OptionOutOfRange(field, f"{field} must have exactly one of flat, source_word and weights")
    token, last = row.target_token, most_target_tokens - 1
    if token is not None and not 0 <= token <= last:
        raise OptionOutOfRange(f"{field}.target_token", f"{field}.target_token is {token}; allowed is 0 to {last}")
    if row.source_word is not None:
        _check_word(f"{field}.source_word", row.source_word, len(source.words))
    if row.weights:
        _check_weights(f"{field}.weights", row.weights, len(source.pieces) + 1)


def _check_weights(field: str, weights: Sequence[float], columns: int) -> None:
    if len(weights) != columns:
        message = f"{field} has {len(weights)} values; the source has {columns - 1} pieces and an end of sentence"
        raise OptionOutOfRange(field, f"{message}, so {columns} are needed")
    if not (min(weights) >= 0 and math.isfinite(sum(weights)) and sum(weights) > 0):
        raise OptionOutOfRange(field, f"{field} must hold finite values, none negative, and not all 0")
