"""The use case of translation: text in, ``Translation`` out; no protobuf, no graph.

Rows are target pieces (end of sentence included), columns are source pieces (end of sentence included), everywhere.
"""

import asyncio
import time
from dataclasses import replace

from bundle.manifest import Manifest
from bundle.search import Hypothesis, SearchOptions, max_target_tokens
from bundle.step import MAX_BEAM_SIZE, MAX_LENGTH_PENALTY, MAX_NO_REPEAT_NGRAM_SIZE
from bundle.tokenizer import TokenizedText, Tokenizer
from service.aligner import Aligner
from service.batch import Job, Progress
from service.errors import (
    AttentionMissing,
    InterventionUnsupported,
    OptionOutOfRange,
    TargetTooLong,
)
from service.guard import RETRY_NGRAM_SIZE, Evidence, Norms, loops, severity, suspicions
from service.intake import Intake
from service.metering import meter
from service.metrics import Metrics
from service.metrics.registration import SeriesOf
from service.scheduler import Scheduler, together
from service.tracing import exemplar, record_stages
from service.translation import (
    Alignment,
    Answer,
    PreparedText,
    Timings,
    TracedTranslation,
    TranslatedHypothesis,
    Translation,
    TranslationOptions,
)

_TOKENIZING_SECONDS = 0.001  # at a stretch, until other calls have their turn


class Translator:
    """Translates texts with one bundle.

    Attributes:
        manifest: The bundle's.
        tokenizer: The bundle's.
        intake: What it can take.
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
        self._norms = Norms.of(manifest)
        self.intake = Intake(tokenizer, manifest.limits, self._norms.length_ratio)
        self._aligner = Aligner(manifest, reverse)
        self._scheduler = scheduler
        self._metrics = metrics
        self._series = SeriesOf(manifest.qualified_name)
        self._turn = asyncio.Lock()  # to tokenize
        self._tokenizing_seconds = 0.0  # since the loop last had its turn in between

    async def translate(
        self, text: str, options: TranslationOptions, deadline: float | None = None, progress: Progress | None = None
    ) -> Translation:
        """Return the translation of ``text``, taken as one sentence.

        Args:
            text: What to translate.
            options: How to decode.
            deadline: Time of the running loop's clock (``loop.time()``) at which the answer is no longer wanted.
            progress: Told what is certain of the best hypothesis, as of ``Job``.

        Raises:
            InvalidRequest: The text is empty, too long or not text; or an option is out of range.
            AttentionMissing: An alignment, or to be guarded by attention, was asked of a model without attention.
            ReverseModelMissing: It was asked for by a method that reads both directions, and only one is loaded.
            PosteriorMissing: It was asked for from the posterior, which the bundle does not give.
            QueueFull: Too many sentences wait already.
            DeadlinePassed: The deadline came first.
            Unavailable: The service is draining, or the engine failed.
        """
        translation = (await self._answer(text, None, options, deadline, progress)).translation
        if options.alignment:
            self._series(self._metrics.stages.seconds, "explain").observe(translation.timings.explain, exemplar())
        return translation

    async def trace(
        self, text: str, target: str | None, options: TranslationOptions, deadline: float | None = None
    ) -> TracedTranslation:
        """Return the translation of ``text``, or ``target`` as if it were ours, with the attention behind it.

        Raises:
            TargetEmpty, TargetTooLong: ``target`` cannot be a translation.
            ServiceError: As for ``translate``.
        """
        return (await self._answer(text, target, replace(options, alignment=True), deadline)).traced

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
        return self.intake.target(text, field)

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
        return (await self._decoded(prepared, deadline)).traced

    async def _answer(
        self,
        text: str,
        target: str | None,
        options: TranslationOptions,
        deadline: float | None,
        progress: Progress | None = None,
    ) -> Answer:
        started = time.perf_counter()
        prepared = await self._prepared(text, target, options)
        answer = self._judged(
            await self._decoded(prepared if progress is None else prepared.telling(progress), deadline)
        )
        if options.guard == "retry" and loops(answer.translation.suspicions):
            answer = await self._retried(answer, deadline)
        meter(self._metrics, self._series, self.manifest, answer, time.perf_counter() - started)
        return answer

    async def _prepared(self, text: str, target: str | None, options: TranslationOptions) -> PreparedText:
        if options.traced:
            self._require_attention()
        self._aligner.check(options)
        async with self._turn:
            if self._tokenizing_seconds > _TOKENIZING_SECONDS:  # a request of many texts must not hold up the loop
                self._tokenizing_seconds = 0.0
                await asyncio.sleep(0)
            began = time.perf_counter()
            try:
                source = self.intake.source(text)
                given = None if target is None else self.intake.given_target(target)
                job = self._job(source, given, options)
            finally:
                seconds = time.perf_counter() - began
                self._tokenizing_seconds += seconds
            return PreparedText(source, given, job, options, seconds)

    async def _decoded(self, prepared: PreparedText, deadline: float | None) -> Answer:
        source = prepared.source
        if prepared.options.traced:  # the loop has nothing better to do while one sentence is being decoded
            asyncio.get_running_loop().call_soon(lambda: source.words)
        outcome = await self._scheduler.submit(prepared.job, deadline)
        decoded = time.perf_counter()
        hypotheses = tuple(self._hypothesis(hypothesis, prepared.target) for hypothesis in outcome.decoded.hypotheses)
        detokenized = ended = time.perf_counter()
        if prepared.options.alignment:
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
        record_stages("sentence", timings.by_stage, batch_size=outcome.decoded.batch_size)
        return Answer(prepared, outcome, Translation(hypotheses, source, timings, outcome.decoded.batch_size))

    def _judged(self, answer: Answer) -> Answer:
        """Return ``answer`` with what speaks against its best hypothesis."""
        source_ids, traces = answer.prepared.job.source_ids, answer.outcome.decoded.traces
        best = answer.outcome.decoded.hypotheses[0]
        evidence = Evidence(
            source_ids=source_ids,
            unknown_source_tokens=source_ids.count(self.manifest.special_ids.unk),
            source_words=answer.translation.source.words if traces else (),
            target_ids=best.token_ids,
            log_probability=best.log_probability,
            attention_weights=traces[0].attention_weights if traces else None,
            cut_off=best.finish_reason == "max_length",
        )
        found = suspicions(evidence, self._norms)
        return replace(answer, translation=replace(answer.translation, suspicions=found)) if found else answer

    async def _retried(self, first: Answer, deadline: float | None) -> Answer:
        """Return the less suspicious of a translation that loops and of one made with repetition blocked."""
        job = first.prepared.job
        if 0 < job.options.no_repeat_ngram_size <= RETRY_NGRAM_SIZE:
            return first  # it was blocked already
        options = replace(job.options, no_repeat_ngram_size=RETRY_NGRAM_SIZE)
        prepared = replace(first.prepared, job=replace(job, options=options), tokenize_seconds=0.0).following()
        retries = self._metrics.guard.retries
        # A deadline that comes first passes for the whole: the first translation would be another answer than the
        # one that the same request gets when there is time.
        second = self._judged(await self._decoded(prepared, deadline))
        better = severity(second.translation.suspicions) < severity(first.translation.suspicions)
        retries.labels(self.manifest.qualified_name, "better" if better else "kept").inc()
        timings = first.translation.timings + second.translation.timings
        chosen = second if better else first
        return replace(chosen, translation=replace(chosen.translation, timings=timings, retried=better))

    def _require_attention(self) -> None:
        if self.manifest.score_kind == "none":
            raise AttentionMissing(
                f"model {self.manifest.bundle_id!r} ({self.manifest.architecture}) has no attention, so there is no "
                "alignment and no explanation; ask for the translation alone."
            )

    def _job(self, source: TokenizedText, target: TokenizedText | None, options: TranslationOptions) -> Job:
        special = self.manifest.special_ids
        _check_ranges(options, self.manifest.limits.max_target_tokens)
        prefix = self.intake.prefix(options.forced_prefix)
        source_ids = (*source.token_ids, special.eos)
        search = self._search(len(source_ids), prefix, options, "options.forced_prefix")
        target_ids = () if target is None else (*target.token_ids, special.eos)
        return Job(source_ids, search, trace=options.traced, target_ids=target_ids)

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
            no_repeat_ngram_size=options.no_repeat_ngram_size,
        )

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


def _aligned(hypothesis: TranslatedHypothesis, alignment: Alignment) -> TranslatedHypothesis:
    return replace(hypothesis, alignment=alignment)


def _check_ranges(options: TranslationOptions, most_target_tokens: int) -> None:
    """Refuse an option out of range, naming the field as the proto does."""
    ranges = (
        ("beam_size", options.beam_size, 1, MAX_BEAM_SIZE),
        ("num_hypotheses", options.n_best, 1, options.beam_size),
        ("length_penalty", options.length_penalty, 0, MAX_LENGTH_PENALTY),
        ("max_target_tokens", options.max_target_tokens, 1, most_target_tokens),
        ("no_repeat_ngram_size", options.no_repeat_ngram_size, 0, MAX_NO_REPEAT_NGRAM_SIZE),
    )
    for name, value, lowest, highest in ranges:
        if value is not None and not lowest <= value <= highest:
            raise OptionOutOfRange(f"options.{name}", f"{name} is {value}; allowed is {lowest} to {highest}")
