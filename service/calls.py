"""The calls of the service, without transport: a request and a deadline in, a reply or several out.

A call leases the model that answers it for as long as it lasts, a stream until its last message or until it is closed.
A deadline is a time of the running loop's clock (``loop.time()``) at which the answer is no longer wanted, or None.
Every call raises ``ServiceError`` and nothing else on purpose.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import Message

from service import logs
from service.access.principals import asking
from service.cache import CacheKey, TranslationCache
from service.contrast import Question
from service.documents import in_order, patiently, sentences, window
from service.errors import InvalidRequest, OptionOutOfRange, ServiceError, TextCountOutOfRange
from service.explainer import Explanation
from service.explanation_replies import write_alternatives, write_contrast, write_explanation, write_what_if
from service.metrics import Metrics
from service.models.registry import Models
from service.models.served_model import ServedModel
from service.pb import interlinear_pb2 as pb
from service.replies import (
    write_listed_model,
    write_metadata,
    write_model,
    write_options,
    write_sentence,
    write_translation,
)
from service.requests import (
    read_document,
    read_intervention,
    read_limit,
    read_options,
    read_part,
    read_views,
    refuse_given_prefix,
    refuse_options,
    refuse_several,
)
from service.scheduler import together
from service.segmentation import Segmenter, Sentence
from service.settings import Settings
from service.status import TRANSIENT, status_of
from service.token_stream import told
from service.tracing import exemplar
from service.translation import TranslationOptions

_PLAIN = pb.ALIGNMENT_DETAIL_UNSPECIFIED, pb.MATRIX_ENCODING_UNSPECIFIED
_FIELDS_OF_ONE_TEXT = ("text", "alignment_options.method")  # the reverse model may take one translation, not another

ResponseT = TypeVar("ResponseT", bound=Message)
Behavior = Callable[[Any, float | None], Awaitable[Message]]
Streaming = Callable[[Any, float | None], AsyncGenerator[Message, None]]


class _Asked(NamedTuple):
    """How texts are to be translated, and their translations written."""

    options: TranslationOptions
    detail: int
    encoding: int

    @classmethod
    def by(cls, request: pb.TranslateRequest | pb.DocumentOptions) -> "_Asked":
        aligned = request.alignment != pb.ALIGNMENT_DETAIL_UNSPECIFIED
        options = read_options(request.options, aligned, request.alignment_options, request.guard)
        return cls(options, request.alignment, request.matrix_encoding)


class Calls:
    """Every call of the proto that asks for an answer of a model."""

    def __init__(self, models: Models, settings: Settings, metrics: Metrics) -> None:
        self._models = models
        self._max_texts = settings.max_texts
        self._batch_hypotheses = settings.batch_hypotheses
        # For all documents together: what a batch takes, and never more than half the queue, so that a sentence of no
        # document finds a place, and soon.
        most = min(window(settings.batch_hypotheses, beam_size=1), settings.queue_capacity // 2)
        self._room = asyncio.Semaphore(max(1, most))
        self._cache = TranslationCache(settings.cache_bytes, metrics)
        self._metrics = metrics

    @property
    def by_name(self) -> Mapping[str, Behavior]:
        """The calls by the names that the proto gives them."""
        return {
            "Translate": self.translate,
            "Explain": self.explain,
            "Contrast": self.contrast,
            "ListAlternatives": self.list_alternatives,
            "WhatIf": self.what_if,
            "ListModels": self.list_models,
            "GetModel": self.get_model,
        }

    @property
    def streams(self) -> Mapping[str, Streaming]:
        """The calls that answer with several messages, by their names; what they return must be closed."""
        return {"TranslateStream": self.translate_stream, "StreamTokens": self.stream_tokens}

    async def translate(self, request: pb.TranslateRequest, deadline: float | None) -> pb.TranslateResponse:
        """Return a result for each text, or raise what is wrong with the whole call."""
        if not 1 <= len(request.texts) <= self._max_texts:
            message = f"texts has {len(request.texts)} texts; send 1 to {self._max_texts} in one request"
            raise TextCountOutOfRange("texts", message)
        asked = _Asked.by(request)
        with self._leased(request) as model:
            outcomes = await together(self._outcome(model, text, asked, deadline) for text in request.texts)
            _raise_for_all(outcomes)
            response = pb.TranslateResponse(
                effective_options=write_options(asked.options, model.manifest), metadata=write_metadata(model)
            )
            for index, outcome in enumerate(outcomes):
                self._add_result(response, f"texts[{index}]", outcome)
            return response

    async def translate_stream(
        self, requests: AsyncGenerator[pb.TranslateStreamRequest, None], deadline: float | None
    ) -> AsyncGenerator[pb.TranslateStreamResponse, None]:
        """Yield the sentences of a document with their translations, in order, and what follows the last one."""
        async with aclosing(requests):
            document = read_document(await anext(requests, None))
            asked = _Asked.by(document)
            with self._leased(document) as model, self._metered_document():
                language = document.source_language_code or model.manifest.source_language
                segmenter = Segmenter(language, model.translator.intake.fits)

                async def answer(text: str) -> pb.Translation | ServiceError:
                    async with self._room:
                        return await patiently(lambda: self._of_document(model, text, asked, deadline), deadline)

                failed = 0
                parts = (read_part(request) async for request in requests)
                given = sentences(parts, segmenter, document.last_sequence_id)
                most = window(self._batch_hypotheses, asked.options.beam_size)
                async with aclosing(in_order(given, answer, most)) as answered:
                    async for sentence, outcome in answered:
                        failed += isinstance(outcome, ServiceError)
                        yield self._sentence(sentence, outcome)
                _check_resumed(document, segmenter)
                end = pb.DocumentEnd(after=segmenter.after, sentences=segmenter.sentences, failed=failed)
                yield pb.TranslateStreamResponse(end=_signed(end, model, asked.options))

    async def stream_tokens(
        self, request: pb.StreamTokensRequest, deadline: float | None
    ) -> AsyncGenerator[pb.StreamTokensResponse, None]:
        """Yield what the translation of a text gains while it grows, and then the translation."""
        began = time.perf_counter()
        options = read_options(request.options, alignment=False)
        refuse_several(options)
        with self._leased(request) as model:
            first = self._metrics.streams.first_token_seconds.labels(model.manifest.qualified_name)
            waiting = True
            async with aclosing(told(model.translator, request.text, options, deadline)) as parts:
                async for part in parts:
                    if isinstance(part, str):
                        if waiting:
                            first.observe(time.perf_counter() - began, exemplar())
                            waiting = False
                        yield pb.StreamTokensResponse(text=part)
                    else:
                        translation = write_translation(part, *_PLAIN)
                        yield _signed(pb.StreamTokensResponse(translation=translation), model, options)

    async def explain(self, request: pb.ExplainRequest, deadline: float | None) -> pb.ExplainResponse:
        """Return an explanation of our translation, or of the target that the caller gives."""
        views = read_views(request.views)
        target = _given(request)
        if target is not None:
            refuse_options(request.options)
        options = read_options(request.options, True, request.alignment_options)
        with self._leased(request) as model:
            explanation = await model.explainer.explain(
                request.text, target, options, deadline, request.hypothesis_index
            )
            asked = model, explanation, views, request.matrix_encoding
            known = pb.EXPLANATION_VIEW_COMPONENTS not in views or model.components.knows(explanation.decomposition)
            if explanation.small and known:
                response = _written(*asked)
            else:  # milliseconds, of a long sentence tens of them
                response = await asyncio.to_thread(_written, *asked)
            if target is None:
                response.effective_options.CopyFrom(write_options(options, model.manifest))
            response.metadata.CopyFrom(write_metadata(model))
            return response

    async def contrast(self, request: pb.ContrastRequest, deadline: float | None) -> pb.ContrastResponse:
        """Return how a word of a translation compares with another."""
        options = _options_of_one(request)
        refuse_given_prefix(request)
        question = Question(request.text, _given(request), options, request.target_word)
        with self._leased(request) as model:
            contrast = await model.comparer.contrast(question, request.alternative, deadline)
            return _signed(write_contrast(contrast, request.matrix_encoding), model, options)

    async def list_alternatives(
        self, request: pb.ListAlternativesRequest, deadline: float | None
    ) -> pb.ListAlternativesResponse:
        """Return what else might stand at a place of a translation."""
        options = _options_of_one(request)
        refuse_given_prefix(request)
        question = Question(request.text, _given(request), options, request.target_word)
        with self._leased(request) as model:
            alternatives = await model.comparer.alternatives(question, read_limit(request), deadline)
            return _signed(write_alternatives(alternatives, request.matrix_encoding), model, options)

    async def what_if(self, request: pb.WhatIfRequest, deadline: float | None) -> pb.WhatIfResponse:
        """Return what becomes of a translation when its attention or its source is changed."""
        options = _options_of_one(request)
        intervention = read_intervention(request.intervention)
        with self._leased(request) as model:
            answer = await model.what_if.answer(request.text, options, intervention, deadline)
            return _signed(write_what_if(answer, request.matrix_encoding), model, options)

    async def list_models(self, request: pb.ListModelsRequest, deadline: float | None) -> pb.ListModelsResponse:
        """Return the loaded models."""
        models = self._models
        return pb.ListModelsResponse(
            models=[write_listed_model(model, models.standing(model)) for model in models.listed()]
        )

    async def get_model(self, request: pb.GetModelRequest, deadline: float | None) -> pb.GetModelResponse:
        """Return one model with its card and files."""
        with self._models.leased(request.name, "", "") as model:
            return pb.GetModelResponse(model=write_model(model, self._models.standing(model)))

    @contextmanager
    def _leased(self, request: Any) -> Iterator[ServedModel]:
        """Lend the model that ``request`` is meant for; what is logged of this call from then on names it."""
        with self._models.leased(request.model, request.source_language_code, request.target_language_code) as model:
            logs.about(model=model.manifest.qualified_name, digest=model.digest)
            yield model

    async def _outcome(
        self, model: ServedModel, text: str, asked: _Asked, deadline: float | None
    ) -> pb.Translation | ServiceError:
        """Return the translation of one text, made now or before, or why there is none."""
        key = CacheKey(asking.get().name, model.digest, model.reverse_digest, text, *asked)
        kept = self._cache.get(key)
        if kept is not None:
            return kept
        try:
            made = await model.translator.translate(text, asked.options, deadline)
        except ServiceError as error:
            return error
        translation = write_translation(made, asked.detail, asked.encoding)
        self._cache.keep(key, translation)
        return translation

    async def _of_document(
        self, model: ServedModel, text: str, asked: _Asked, deadline: float | None
    ) -> pb.Translation | ServiceError:
        """Return the outcome of one sentence; raise what would befall every other as well."""
        outcome = await self._outcome(model, text, asked, deadline)
        if isinstance(outcome, ServiceError) and not _is_of_one_text(outcome):
            raise outcome
        return outcome

    def _add_result(self, response: pb.TranslateResponse, field: str, outcome: pb.Translation | ServiceError) -> None:
        result = response.results.add()
        if isinstance(outcome, ServiceError):
            self._metrics.requests.errors.labels(outcome.reason).inc()
            result.error.CopyFrom(status_of(outcome, field))
        else:
            result.translation.CopyFrom(outcome)

    def _sentence(self, sentence: Sentence, outcome: pb.Translation | ServiceError) -> pb.TranslateStreamResponse:
        refused = isinstance(outcome, ServiceError)
        if isinstance(outcome, ServiceError):
            self._metrics.requests.errors.labels(outcome.reason).inc()
        self._metrics.streams.document_sentences.labels("refused" if refused else "ok").inc()
        return write_sentence(sentence, outcome)

    @contextmanager
    def _metered_document(self) -> Iterator[None]:
        result = "cancelled"
        try:
            yield
            result = "ok"
        except Exception:
            result = "failed"
            raise
        finally:
            self._metrics.streams.documents.labels(result).inc()


def _written(model: ServedModel, explanation: Explanation, views: Collection[int], encoding: int) -> pb.ExplainResponse:
    """Return an explanation as it is told."""
    shown = pb.EXPLANATION_VIEW_COMPONENTS in views
    sides = model.components.read(explanation.decomposition) if shown else None
    return write_explanation(explanation, views, encoding, sides)


def _options_of_one(request: Any) -> TranslationOptions:
    """Return the options of a request that is about one translation and its alignment."""
    options = read_options(request.options, alignment=True)
    refuse_several(options)
    return options


def _signed(response: ResponseT, model: ServedModel, options: TranslationOptions) -> ResponseT:
    """Return ``response`` with who made it, and how."""
    signed: Any = response
    signed.effective_options.CopyFrom(write_options(options, model.manifest))
    signed.metadata.CopyFrom(write_metadata(model))
    return response


def _given(request: Any) -> str | None:
    """Return the translation that the caller gives, if it does."""
    return request.target if request.HasField("target") else None


def _raise_for_all(outcomes: Sequence[pb.Translation | ServiceError]) -> None:
    """Raise what is wrong with the whole call: its options, or a service that could take none of its texts."""
    failures = [outcome for outcome in outcomes if isinstance(outcome, ServiceError)]
    for failure in failures:
        if not isinstance(failure, TRANSIENT) and not _is_of_one_text(failure):
            raise failure
    if len(failures) == len(outcomes) and all(isinstance(failure, TRANSIENT) for failure in failures):
        raise failures[0]


def _is_of_one_text(error: ServiceError) -> bool:
    """Return whether the next text may fare better."""
    return isinstance(error, InvalidRequest) and error.field in _FIELDS_OF_ONE_TEXT


def _check_resumed(document: pb.DocumentOptions, segmenter: Segmenter) -> None:
    if document.last_sequence_id > segmenter.sentences:
        message = f"last_sequence_id is {document.last_sequence_id}; this document has {segmenter.sentences} sentences"
        raise OptionOutOfRange("last_sequence_id", f"{message}. Send the same one again, or another from its beginning")
