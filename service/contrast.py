"""The use cases Contrast and ListAlternatives: why this word and not that one, and what else might stand there.

Rows are target pieces (end of sentence included), columns are source pieces (end of sentence included), everywhere.
What stands before a word is kept in tokens, whatever way the model cut it. An alternative is cut into pieces as the
tokenizer does it in its place, after the text of the translation up to the word; where it would run into the word
before it there, a space comes between.
"""

import asyncio
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64

from bundle.decomposition import Decomposition, pooled_shares
from bundle.step import MAX_BEAM_SIZE
from bundle.tables import ComponentTables
from bundle.tokenizer import TokenizedText
from service.continuation import Continuation, Place, is_cut
from service.errors import AlternativeInvalid, OptionOutOfRange
from service.explainer import ExplanationWarning, decompose_traced, warnings_about
from service.metrics import Metrics
from service.quality import counted
from service.scheduler import together
from service.translation import TracedTranslation, TranslatedHypothesis, TranslationOptions
from service.translator import Translator


@dataclass(frozen=True)
class Question:
    """A word of a translation that is asked about.

    Attributes:
        text: The source, taken as one sentence.
        target: The translation; None takes ours.
        options: How to decode our translation, and what follows another word.
        target_word: Which word of the translation.
    """

    text: str
    target: str | None
    options: TranslationOptions
    target_word: int


@dataclass(frozen=True)
class ContrastSide:
    """One of two words that are compared.

    Attributes:
        hypothesis: The translation it stands in.
        target_words: Its words in that translation.
        log_probability: Of these words after those before them, in nats.
        source_weights: Mean of their rows of the word matrix; last is the end of sentence.
        shares: Softmax-aware shares of the nine terms over their rows; None without component tables.
    """

    hypothesis: TranslatedHypothesis
    target_words: tuple[int, ...]
    log_probability: float
    source_weights: Float[np.ndarray, "source_word"]
    shares: Float64[np.ndarray, "3 3"] | None


@dataclass(frozen=True)
class Contrast:
    """Two words compared; differences are those of ``chosen`` minus those of ``alternative``.

    Attributes:
        source: The source.
        chosen: The word of the translation.
        alternative: The other one, in the best translation that has it there.
        log_probability_difference: Above 0 the model prefers the word of the translation, in nats.
        source_weight_differences: Of each source word, and of the end of sentence.
        share_differences: Of each term; None without component tables.
        warnings: What to know before trusting the figures of ``chosen``.
    """

    source: TokenizedText
    chosen: ContrastSide
    alternative: ContrastSide
    log_probability_difference: float
    source_weight_differences: Float[np.ndarray, "source_word"]
    share_differences: Float64[np.ndarray, "3 3"] | None
    warnings: tuple[ExplanationWarning, ...]


@dataclass(frozen=True)
class Alternative:
    """One thing that might stand at a place.

    Attributes:
        text: The word; empty where the translation ends.
        log_probability: Of its first piece, after all that stands before, in nats.
        hypothesis: The best translation with that piece there.
    """

    text: str
    log_probability: float
    hypothesis: TranslatedHypothesis


@dataclass(frozen=True)
class Alternatives:
    """What else might stand at a place of a translation.

    Attributes:
        source: The source.
        target: The translation that was looked into.
        alternatives: All different, most probable first.
    """

    source: TokenizedText
    target: TokenizedText
    alternatives: tuple[Alternative, ...]


class Comparer:
    """Compares words of translations of one bundle; ``tables`` are None when the bundle has none."""

    def __init__(self, translator: Translator, tables: ComponentTables | None, metrics: Metrics) -> None:
        self._translator = translator
        self._manifest = translator.manifest
        self._tables = tables if translator.manifest.score_kind == "bilinear" else None
        self._metrics = metrics
        self._continuation = Continuation(translator)

    async def contrast(self, question: Question, alternative: str, deadline: float | None = None) -> Contrast:
        """Return how a word of a translation compares with ``alternative`` in its place.

        Args:
            question: Which word of which translation.
            alternative: One word or more.
            deadline: Time of the running loop's clock (``loop.time()``) at which the answer is no longer wanted.

        Raises:
            AlternativeInvalid: The alternative is empty, is the word itself, or is nothing the model could write there.
            InvalidRequest: As for ``Translator.trace``; or there is no such word.
            AttentionMissing: The model has no attention.
            QueueFull, DeadlinePassed, Unavailable: As for ``Translator.translate``.
        """
        with counted(self._metrics.quality, self._manifest.qualified_name, "contrast"):
            place = await self._continuation.place(question.text, question.target, question.options, deadline)
            place = place.before(question.target_word, last=len(place.target.words) - 1)
            begun = self._begun(place, alternative)
            ids = await self._continuation.best_apart(place.prepared, begun, "alternative", deadline)
            # Both are scored on one path, so that what differs is the words and not how they were computed.
            chosen = place.prepared.following()
            pair = (chosen, chosen.scoring(ids))
            traced = await together(self._translator.trace_prepared(each, deadline) for each in pair)
            return await asyncio.to_thread(self._compared, place, len(begun), *traced)

    async def alternatives(self, question: Question, limit: int, deadline: float | None = None) -> Alternatives:
        """Return what else might stand at a place of a translation, each with the best translation that has it there.

        Args:
            question: Which word of which translation; the number of its words asks what might follow them.
            limit: Alternatives wanted, 1 to 16. There are fewer where the 16 likeliest pieces begin fewer words.
            deadline: Time of the running loop's clock (``loop.time()``) at which the answer is no longer wanted.

        Raises:
            InvalidRequest: As for ``Translator.trace``; or there is no such place, or ``limit`` is out of range.
            AttentionMissing: The model has no attention.
            QueueFull, DeadlinePassed, Unavailable: As for ``Translator.translate``.
        """
        with counted(self._metrics.quality, self._manifest.qualified_name, "alternatives"):
            if not 1 <= limit <= MAX_BEAM_SIZE:
                raise OptionOutOfRange("limit", f"limit is {limit}; allowed is 1 to {MAX_BEAM_SIZE}")
            place = await self._continuation.place(question.text, question.target, question.options, deadline)
            place = place.before(question.target_word, last=len(place.target.words))
            token_ids = await self._continuation.likeliest(place.prepared, place.prefix, "target_word", deadline)
            place = replace(place, prepared=place.prepared.following())
            found: dict[str, Alternative] = {}
            while token_ids and len(found) < limit:
                missing = limit - len(found)
                follow = (self._followed(place, token_id, deadline) for token_id in token_ids[:missing])
                for each in await together(follow):
                    if each is not None:
                        found.setdefault(each.text, each)
                token_ids = token_ids[missing:]
            by_probability = sorted(found.values(), key=lambda each: -each.log_probability)
            return Alternatives(place.prepared.source, place.target, tuple(by_probability))

    def _begun(self, place: Place, alternative: str) -> tuple[int, ...]:
        """Return the tokens of a translation up to and with ``alternative`` at ``place``."""
        field, said = "alternative", alternative.strip()
        if not said:
            raise AlternativeInvalid(field, "alternative is empty, or only spaces; name a word to compare with")
        word = place.target.words[place.words]
        before = place.target.text[: word.span.start_code_point]
        for beginning in (before, f"{before} "):
            whole = self._translator.tokenized_target(beginning + said, field)
            pieces = _pieces_from(whole, len(beginning))
            ids = (*place.prefix, *pieces)
            if pieces and is_cut(self._translator.tokenizer.decode_with_spans(ids), place.start):
                break
        else:
            message = "alternative holds nothing to write, or would be read as one word with what stands before it"
            raise AlternativeInvalid(field, message)
        if unknown := sum(map(self._translator.tokenizer.is_unknown, pieces)):
            message = f"alternative has {unknown} pieces outside the model's vocabulary; a translation cannot hold them"
            raise AlternativeInvalid(field, message)
        length = len(word.piece_indices)
        if said == word.text or pieces == place.prepared.job.target_ids[place.start :][:length]:
            raise AlternativeInvalid(field, "alternative is the word of the translation; name another to compare with")
        return ids

    async def _followed(self, place: Place, token_id: int, deadline: float | None) -> Alternative | None:
        """Return what becomes of ``place`` with this token there; None if it runs into the word before."""
        ids, is_end = (*place.prefix, token_id), token_id == self._manifest.special_ids.eos
        most = place.prepared.options.max_target_tokens or self._manifest.limits.max_target_tokens
        if is_end or len(ids) == most:  # nothing may follow
            traced = await self._translator.trace_prepared(place.prepared.scoring(ids), deadline)
        else:
            traced = await self._continuation.best(place.prepared, ids, "target_word", deadline)
        hypothesis = traced.translation.hypotheses[0]
        if not is_cut(hypothesis.target, place.start):
            return None
        text = next((word.text for word in hypothesis.target.words if word.piece_indices[0] == place.start), "")
        return Alternative(text, hypothesis.token_log_probabilities[place.start], hypothesis)

    def _compared(self, place: Place, end: int, chosen: TracedTranslation, instead: TracedTranslation) -> Contrast:
        """Return how the word at ``place`` compares with those that end before the piece ``end`` of ``instead``."""
        decompositions = [self._decomposed(traced) for traced in (chosen, instead)]
        word = place.target.words[place.words]
        side = self._side(chosen, decompositions[0], range(place.start, word.piece_indices[-1] + 1))
        other = self._side(instead, decompositions[1], range(place.start, end))
        share_differences = None if side.shares is None or other.shares is None else side.shares - other.shares
        return Contrast(
            source=place.prepared.source,
            chosen=side,
            alternative=other,
            log_probability_difference=side.log_probability - other.log_probability,
            source_weight_differences=side.source_weights - other.source_weights,
            share_differences=share_differences,
            warnings=warnings_about(chosen, decompositions[0], self._translator.tokenizer),
        )

    def _decomposed(self, traced: TracedTranslation) -> Decomposition | None:
        return None if self._tables is None else decompose_traced(traced, self._tables, self._manifest)

    def _side(self, traced: TracedTranslation, decomposition: Decomposition | None, pieces: range) -> ContrastSide:
        hypothesis = traced.translation.hypotheses[0]
        alignment = hypothesis.alignment
        assert alignment is not None
        words = tuple(index for index, word in enumerate(hypothesis.target.words) if word.piece_indices[0] in pieces)
        shares = None
        if decomposition is not None:
            last = decomposition.terms.shape[2] - 1
            rows = [min(max(piece + alignment.shift, 0), last) for piece in pieces]
            shares = pooled_shares(decomposition.terms[:, :, rows])
        return ContrastSide(
            hypothesis=hypothesis,
            target_words=words,
            log_probability=sum(hypothesis.word_log_probabilities[word] for word in words),
            source_weights=alignment.word_matrix[list(words)].mean(axis=0),
            shares=shares,
        )


def _pieces_from(text: TokenizedText, code_point: int) -> tuple[int, ...]:
    """Return the tokens of all words from ``code_point`` on; none if there are no words, or one goes over it."""
    rest = [word for word in text.words if word.span.end_code_point > code_point]
    if not rest or rest[0].span.start_code_point < code_point:
        return ()
    return tuple(text.token_ids[rest[0].piece_indices[0] :])
