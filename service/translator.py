"""The use case of translation: text in, ``Translation`` out; no protobuf, no graph.

Rows are target pieces (end of sentence included), columns are source pieces (end of sentence included), everywhere.
"""

import asyncio
import time
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from bundle import alignment
from bundle.errors import InvalidText
from bundle.manifest import Manifest
from bundle.search import Hypothesis, SearchOptions, Trace, max_target_tokens
from bundle.step import MAX_BEAM_SIZE, MAX_LENGTH_PENALTY
from bundle.tokenizer import TokenizedText, Tokenizer
from service.batch import Job
from service.errors import (
    AttentionMissing,
    InvalidRequest,
    OptionOutOfRange,
    SourceEmpty,
    SourceTooLong,
    TargetEmpty,
    TargetTooLong,
    TextInvalid,
)
from service.metrics import Metrics
from service.quality import meter_translation
from service.scheduler import Outcome, Scheduler

_MOST_CHARACTERS = 16  # a token; with more, a text is refused before time is spent on tokenizing it


@dataclass(frozen=True)
class TranslationOptions:
    """How to decode.

    Attributes:
        beam_size: Hypotheses kept at a step, 1 to 16; 1 is greedy.
        n_best: Translations wanted, 1 to ``beam_size``.
        length_penalty: Exponent of the length that divides a log probability to rank hypotheses; 0 ranks by the sum.
        max_target_tokens: Longest translation in tokens, end of sentence included; None takes the bundle's limit.
        forced_prefix: Text that every translation starts with.
        alignment: Whether to return an alignment with every translation.
    """

    beam_size: int = 4
    n_best: int = 1
    length_penalty: float = 1.0
    max_target_tokens: int | None = None
    forced_prefix: str = ""
    alignment: bool = False


@dataclass(frozen=True)
class Alignment:
    """Which source word a target word was made from, as attention says: a reading aid, not a cause.

    Attributes:
        word_matrix: Source pieces summed, target pieces averaged; last row and column are the end of sentence. Rows
            sum to 1.
        piece_weights: Attention weights of every piece, moved by ``shift``. Rows sum to 1.
        links: ``(target word, source word, weight)``, by word index; a target word whose largest weight is on the end
            of sentence has none.
        shift: Rows by which the attention was moved before reading it; the bundle's.
    """

    word_matrix: Float[np.ndarray, "target_word source_word"]
    piece_weights: Float[np.ndarray, "target source"]
    links: tuple[tuple[int, int, float], ...]
    shift: int


@dataclass(frozen=True)
class TranslatedHypothesis:
    """One translation.

    Attributes:
        text: The translation.
        log_probability: Sum over tokens, in nats.
        normalized_score: ``log_probability / length ** length_penalty``, the length counting the end of sentence.
        token_log_probabilities: One a piece of ``target``, then that of the end of sentence where it was emitted.
        finish_reason: ``eos`` or ``max_length``.
        target: Pieces and words, with spans into ``text``.
        alignment: None unless asked for.
    """

    text: str
    log_probability: float
    normalized_score: float
    token_log_probabilities: tuple[float, ...]
    finish_reason: str
    target: TokenizedText
    alignment: Alignment | None = None


@dataclass(frozen=True)
class Timings:
    """Seconds a text spent in every stage; encode and decode include waiting for the others of its batch."""

    queue: float
    tokenize: float
    encode: float
    decode: float
    explain: float
    detokenize: float


@dataclass(frozen=True)
class Translation:
    """The answer to one text.

    Attributes:
        hypotheses: Best first, all different, ``n_best`` of them where the search found as many.
        source: Pieces and words of the source, with spans into the text as given.
        timings: Where the time went.
        batch_size: Most sentences that shared a step with this one, itself included.
    """

    hypotheses: tuple[TranslatedHypothesis, ...]
    source: TokenizedText
    timings: Timings
    batch_size: int


@dataclass(frozen=True)
class TracedTranslation:
    """A translation with what its first hypothesis is explained from.

    Attributes:
        translation: The answer.
        source_ids: Tokens of the source, end of sentence included.
        target_ids: Tokens of the first hypothesis, end of sentence included where it was emitted.
        trace: Attention scores, weights and queries of the first hypothesis.
        attention_keys: Keys of the source.
    """

    translation: Translation
    source_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    trace: Trace
    attention_keys: Float[np.ndarray, "source key"]


class Translator:
    """Translates texts with one bundle.

    Attributes:
        manifest: The bundle's.
        tokenizer: The bundle's.
    """

    def __init__(self, scheduler: Scheduler, tokenizer: Tokenizer, manifest: Manifest, metrics: Metrics) -> None:
        self.manifest = manifest
        self.tokenizer = tokenizer
        self._scheduler = scheduler
        self._metrics = metrics
        self._turn = asyncio.Lock()  # to tokenize

    async def translate(self, text: str, options: TranslationOptions, deadline: float | None = None) -> Translation:
        """Return the translation of ``text``, taken as one sentence.

        Args:
            text: What to translate.
            options: How to decode.
            deadline: Time of the running loop's clock (``loop.time()``) at which the answer is no longer wanted.

        Raises:
            InvalidRequest: The text is empty, too long or not text; or an option is out of range.
            AttentionMissing: An alignment was asked of a model without attention.
            QueueFull: Too many sentences wait already.
            DeadlinePassed: The deadline came first.
            Unavailable: The service is draining, or the engine failed.
        """
        translation, _, _ = await self._answer(text, None, options, deadline)
        if options.alignment:
            stages = self._metrics.stages
            stages.seconds.labels(self.manifest.bundle_id, "explain").observe(translation.timings.explain)
        return translation

    async def trace(
        self, text: str, target: str | None, options: TranslationOptions, deadline: float | None = None
    ) -> TracedTranslation:
        """Return the translation of ``text``, or ``target`` as if it were ours, with the attention behind it.

        Raises:
            TargetEmpty, TargetTooLong: ``target`` cannot be a translation.
            ServiceError: As for ``translate``.
        """
        translation, job, outcome = await self._answer(text, target, replace(options, alignment=True), deadline)
        decoded = outcome.decoded
        assert decoded.attention_keys is not None
        target_ids = decoded.hypotheses[0].token_ids
        return TracedTranslation(translation, job.source_ids, target_ids, decoded.traces[0], decoded.attention_keys)

    async def _answer(
        self, text: str, target: str | None, options: TranslationOptions, deadline: float | None
    ) -> tuple[Translation, Job, Outcome]:
        started = time.perf_counter()
        if options.alignment:
            self._require_attention()
        async with self._turn:
            await asyncio.sleep(0)  # one text a turn of the loop: a request of many must not hold it up
            began = time.perf_counter()
            source = self._source(text)
            given = None if target is None else self._target(target)
            job = self._job(source, given, options)
            tokenized = time.perf_counter()
        outcome = await self._scheduler.submit(job, deadline)
        decoded = time.perf_counter()
        hypotheses = tuple(self._hypothesis(hypothesis, given) for hypothesis in outcome.decoded.hypotheses)
        detokenized = ended = time.perf_counter()
        if outcome.decoded.traces:
            hypotheses = tuple(
                replace(hypothesis, alignment=align(trace, hypothesis.target, source, self.manifest.alignment_shift))
                for hypothesis, trace in zip(hypotheses, outcome.decoded.traces, strict=True)
            )
            ended = time.perf_counter()
        timings = Timings(
            queue=outcome.queue_seconds,
            tokenize=tokenized - began,
            encode=outcome.encode_seconds,
            decode=outcome.decode_seconds,
            explain=ended - detokenized,
            detokenize=detokenized - decoded,
        )
        translation = Translation(hypotheses, source, timings, outcome.decoded.batch_size)
        self._meter(translation, job, outcome, ended - started)
        return translation, job, outcome

    def _require_attention(self) -> None:
        if self.manifest.score_kind == "none":
            raise AttentionMissing(
                f"model {self.manifest.bundle_id!r} ({self.manifest.architecture}) has no attention, so there is no "
                "alignment and no explanation; ask for the translation alone."
            )

    def _source(self, text: str) -> TokenizedText:
        source = self._tokenized(text, "text", self.manifest.limits.max_source_tokens, SourceTooLong)
        if not source.words:
            raise SourceEmpty("text", "text has nothing to translate: it is empty, or holds only spaces")
        return source

    def _target(self, text: str) -> TokenizedText:
        target = self._tokenized(text, "target", self.manifest.limits.max_target_tokens, TargetTooLong)
        if not target.words:
            raise TargetEmpty("target", "target has nothing to explain: it is empty, or holds only spaces")
        return target

    def _tokenized(self, text: str, name: str, limit: int, too_long: type[InvalidRequest]) -> TokenizedText:
        advice = "Split it into sentences and send them one by one."
        if len(text) > _MOST_CHARACTERS * limit:
            raise too_long(name, f"{name} has {len(text)} characters, more than {limit} tokens can hold. {advice}")
        try:
            length = len(self.tokenizer.encode_ids(text)) + 1  # a tenth of the time that spans take
        except InvalidText as error:
            raise TextInvalid(name, f"{name} is not text: {error}") from error
        if length > limit:
            message = f"{name} has {length} tokens, end of sentence included; this bundle allows {limit}. {advice}"
            raise too_long(name, message)
        return self.tokenizer.encode(text)

    def _job(self, source: TokenizedText, target: TokenizedText | None, options: TranslationOptions) -> Job:
        special = self.manifest.special_ids
        _check_ranges(options, self.manifest.limits.max_target_tokens)
        prefix = self._prefix(options.forced_prefix)
        source_ids = (*source.token_ids, special.eos)
        limit = options.max_target_tokens or max_target_tokens(
            len(source_ids) + len(prefix), self.manifest.limits.max_target_tokens
        )
        if len(prefix) >= limit:
            raise TargetTooLong(
                "options.forced_prefix",
                f"forced_prefix has {len(prefix)} tokens and the translation may have {limit}, end of sentence "
                "included; shorten the prefix or raise max_target_tokens.",
            )
        search = SearchOptions(
            max_target_tokens=limit,
            beam_size=options.beam_size,
            n_best=options.n_best,
            length_penalty=options.length_penalty,
            forced_prefix=prefix,
            banned_token_ids=(special.unk,),  # it has no text
        )
        target_ids = () if target is None else (*target.token_ids, special.eos)
        return Job(source_ids, search, trace=options.alignment, target_ids=target_ids)

    def _prefix(self, text: str) -> tuple[int, ...]:
        name = "options.forced_prefix"
        prefix = self._tokenized(text, name, self.manifest.limits.max_target_tokens, TargetTooLong)
        if unknown := sum(map(self.tokenizer.is_unknown, prefix.token_ids)):
            message = f"{name} has {unknown} pieces outside the model's vocabulary; a translation cannot hold them"
            raise TextInvalid(name, message)
        return tuple(prefix.token_ids)

    def _hypothesis(self, hypothesis: Hypothesis, given: TokenizedText | None) -> TranslatedHypothesis:
        target = given or self.tokenizer.decode_with_spans(hypothesis.token_ids)
        return TranslatedHypothesis(
            text=target.text,
            log_probability=hypothesis.log_probability,
            normalized_score=hypothesis.normalized_score,
            token_log_probabilities=hypothesis.token_log_probabilities,
            finish_reason=hypothesis.finish_reason,
            target=target,
        )

    def _meter(self, translation: Translation, job: Job, outcome: Outcome, seconds: float) -> None:
        model, timings, stages = self.manifest.bundle_id, translation.timings, self._metrics.stages
        for stage in ("queue", "tokenize", "encode", "decode", "detokenize"):
            stages.seconds.labels(model, stage).observe(getattr(timings, stage))
        stages.request_seconds.labels(model).observe(seconds)
        if job.target_ids:
            return  # the caller's words: they say nothing about our translations
        requests, best = self._metrics.requests, outcome.decoded.hypotheses[0]
        requests.sentences.labels(model).inc()
        requests.source_characters.labels(model).inc(len(translation.source.text))
        requests.source_tokens.labels(model).inc(len(job.source_ids))
        requests.target_tokens.labels(model).inc(len(best.token_ids))
        requests.finish_reasons.labels(model, best.finish_reason).inc()
        requests.source_length.labels(model).observe(len(job.source_ids))
        requests.target_length.labels(model).observe(len(best.token_ids))
        unknown = sum(map(self.tokenizer.is_unknown, job.source_ids))
        self._metrics.quality.unknown_source_tokens.labels(model).inc(unknown)
        weights = outcome.decoded.traces[0].attention_weights if outcome.decoded.traces else None
        meter_translation(self._metrics.quality, model, len(job.source_ids), best, weights)


def align(trace: Trace, target: TokenizedText, source: TokenizedText, shift: int) -> Alignment:
    """Return the alignment that the attention weights of ``trace`` show."""
    assert trace.attention_weights is not None
    weights = alignment.shifted(trace.attention_weights, shift)
    matrix = alignment.word_matrix(weights, target, source)
    return Alignment(matrix.astype(np.float32), weights, alignment.links(matrix, len(target.words)), shift)


def _check_ranges(options: TranslationOptions, most_target_tokens: int) -> None:
    """Refuse an option out of range, naming the field as the proto does."""
    ranges = (
        ("beam_size", options.beam_size, 1, MAX_BEAM_SIZE),
        ("num_hypotheses", options.n_best, 1, options.beam_size),
        ("length_penalty", options.length_penalty, 0, MAX_LENGTH_PENALTY),
        ("max_target_tokens", options.max_target_tokens, 1, most_target_tokens),
    )
    for name, value, lowest, highest in ranges:
        if value is not None and not lowest <= value <= highest:
            raise OptionOutOfRange(f"options.{name}", f"{name} is {value}; allowed is {lowest} to {highest}")
