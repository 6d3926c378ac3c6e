"""The use case of translation: text in, ``Translation`` out; no protobuf, no graph.

Rows are target pieces (end of sentence included), columns are source pieces (end of sentence included), everywhere.
"""

import asyncio
import time
from dataclasses import replace

from bundle.errors import InvalidText
from bundle.manifest import Manifest
from bundle.search import Hypothesis, SearchOptions, max_target_tokens
from bundle.step import MAX_BEAM_SIZE, MAX_LENGTH_PENALTY
from bundle.tokenizer import TokenizedText, Tokenizer
from service.aligner import Aligner
from service.batch import Job
from service.errors import (
    AttentionMissing,
    InterventionUnsupported,
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
from service.scheduler import Outcome, Scheduler, together
from service.translation import (
    Alignment,
    PreparedText,
    Timings,
    TracedTranslation,
    TranslatedHypothesis,
    Translation,
    TranslationOptions,
)

_MOST_CHARACTERS = 16  # a token; with more, a text is refused before time is spent on tokenizing it


class Translator:
    """Translates texts with one bundle.

    Attributes:
        manifest: The bundle's.
        tokenizer: The bundle's.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        tokenizer: Tokenizer,
        manifest: Manifest,
        metrics: Metrics,
        reverse: "Translator | None" = None,
    ) -> None:
        self.manifest = manifest
        self.tokenizer = tokenizer
        self._aligner = Aligner(manifest, reverse)
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
            ReverseModelMissing: It was asked for by a method that reads both directions, and only one is loaded.
            PosteriorMissing: It was asked for from the posterior, which the bundle does not give.
            QueueFull: Too many sentences wait already.
            DeadlinePassed: The deadline came first.
            Unavailable: The service is draining, or the engine failed.
        """
        _, _, translation = await self._answer(text, None, options, deadline)
        if options.alignment:
            stages = self._metrics.stages
            stages.seconds.labels(self.manifest.qualified_name, "explain").observe(translation.timings.explain)
        return translation

    async def trace(
        self, text: str, target: str | None, options: TranslationOptions, deadline: float | None = None
    ) -> TracedTranslation:
        """Return the translation of ``text``, or ``target`` as if it were ours, with the attention behind it.

        Raises:
            TargetEmpty, TargetTooLong: ``target`` cannot be a translation.
            ServiceError: As for ``translate``.
        """
        answer = await self._answer(text, target, replace(options, alignment=True), deadline)
        return _traced(*answer)

    async def prepare(self, text: str, target: str | None, options: TranslationOptions) -> PreparedText:
        """Return ``text``, and ``target`` if it is given, in tokens, with the job that ``trace`` would do.

        A caller may change the job (other tokens to score or to begin with, a change of attention) and have it done by
        ``trace_prepared``.

        Raises:
            InvalidRequest: As for ``trace``.
            AttentionMissing: The model has no attention.
        """
        return await self._prepared(text, target, replace(options, alignment=True))

    def tokenized_target(self, text: str, field: str) -> TokenizedText:
        """Return ``text`` of the target's language in pieces.

        Raises:
            TextInvalid, TargetTooLong: Naming ``field``: it is no text, or longer than a translation may be.
        """
        return self._tokenized(text, field, self.manifest.limits.max_target_tokens, TargetTooLong)

    def begun(self, prepared: PreparedText, prefix: tuple[int, ...], field: str) -> PreparedText:
        """Return ``prepared`` with a search for the best translation that begins with the tokens of ``prefix``.

        Raises:
            TargetTooLong: Naming ``field``: with that many tokens, nothing could follow.
        """
        job = prepared.job
        options = self._search(len(job.source_ids), prefix, prepared.options, field)
        return replace(prepared, target=None, job=replace(job, options=options, target_ids=()))

    async def trace_prepared(self, prepared: PreparedText, deadline: float | None = None) -> TracedTranslation:
        """Return what becomes of ``prepared.job``; it is metered as no translation, as nobody asked for it as such.

        Raises:
            InterventionUnsupported: The job changes attention, and the bundle's graphs take none from outside.
            QueueFull, DeadlinePassed, Unavailable: As for ``translate``.
        """
        if prepared.job.change is not None and not self._scheduler.takes_change:
            raise InterventionUnsupported(
                f"the graphs of bundle {self.manifest.bundle_id!r} take no attention from outside, so it cannot be "
                "changed; export the bundle again with this version. Source words can be replaced all the same."
            )
        return _traced(*await self._decoded(prepared, deadline))

    async def _answer(
        self, text: str, target: str | None, options: TranslationOptions, deadline: float | None
    ) -> tuple[PreparedText, Outcome, Translation]:
        started = time.perf_counter()
        answer = await self._decoded(await self._prepared(text, target, options), deadline)
        self._meter(*answer, time.perf_counter() - started)
        return answer

    async def _prepared(self, text: str, target: str | None, options: TranslationOptions) -> PreparedText:
        if options.alignment:
            self._require_attention()
        self._aligner.check(options)
        async with self._turn:
            await asyncio.sleep(0)  # one text a turn of the loop: a request of many must not hold it up
            began = time.perf_counter()
            source = self._source(text)
            given = None if target is None else self._target(target)
            job = self._job(source, given, options)
            return PreparedText(source, given, job, options, time.perf_counter() - began)

    async def _decoded(
        self, prepared: PreparedText, deadline: float | None
    ) -> tuple[PreparedText, Outcome, Translation]:
        source = prepared.source
        outcome = await self._scheduler.submit(prepared.job, deadline)
        decoded = time.perf_counter()
        hypotheses = tuple(self._hypothesis(hypothesis, prepared.target) for hypothesis in outcome.decoded.hypotheses)
        detokenized = ended = time.perf_counter()
        if outcome.decoded.traces:
            alignments = await together(
                self._aligner.align(trace, hypothesis.target, source, prepared.options, deadline)
                for hypothesis, trace in zip(hypotheses, outcome.decoded.traces, strict=True)
            )
            hypotheses = tuple(map(_aligned, hypotheses, alignments))
            ended = time.perf_counter()
        timings = Timings(
            queue=outcome.queue_seconds,
            tokenize=prepared.tokenize_seconds,
            encode=outcome.encode_seconds,
            decode=outcome.decode_seconds,
            explain=ended - detokenized,
            detokenize=detokenized - decoded,
        )
        return prepared, outcome, Translation(hypotheses, source, timings, outcome.decoded.batch_size)

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
        target = self.tokenized_target(text, "target")
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
        search = self._search(len(source_ids), prefix, options, "options.forced_prefix")
        target_ids = () if target is None else (*target.token_ids, special.eos)
        return Job(source_ids, search, trace=options.alignment, target_ids=target_ids)

    def _search(
        self, source_tokens: int, prefix: tuple[int, ...], options: TranslationOptions, field: str
    ) -> SearchOptions:
        limit = options.max_target_tokens or max_target_tokens(
            source_tokens + len(prefix), self.manifest.limits.max_target_tokens
        )
        if len(prefix) >= limit:
            raise TargetTooLong(
                field,
                f"the translation is to begin with {len(prefix)} tokens and may have {limit}, end of sentence "
                "included; shorten its beginning or raise max_target_tokens.",
            )
        return SearchOptions(
            max_target_tokens=limit,
            beam_size=options.beam_size,
            n_best=options.n_best,
            length_penalty=options.length_penalty,
            forced_prefix=prefix,
            banned_token_ids=(self.manifest.special_ids.unk,),  # it has no text
        )

    def _prefix(self, text: str) -> tuple[int, ...]:
        name = "options.forced_prefix"
        prefix = self.tokenized_target(text, name)
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

    def _meter(self, prepared: PreparedText, outcome: Outcome, translation: Translation, seconds: float) -> None:
        job, model, timings, stages = (
            prepared.job,
            self.manifest.qualified_name,
            translation.timings,
            self._metrics.stages,
        )
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


def _traced(prepared: PreparedText, outcome: Outcome, translation: Translation) -> TracedTranslation:
    decoded = outcome.decoded
    assert decoded.attention_keys is not None
    target_ids = tuple(hypothesis.token_ids for hypothesis in decoded.hypotheses)
    return TracedTranslation(translation, prepared.job.source_ids, target_ids, decoded.traces, decoded.attention_keys)


def _aligned(hypothesis: TranslatedHypothesis, alignment: Alignment) -> TranslatedHypothesis:
    return replace(hypothesis, alignment=alignment)


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
