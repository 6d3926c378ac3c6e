"""The calls of the service, without transport: a request and a deadline in, a reply out.

A deadline is a time of the running loop's clock (``loop.time()``) at which the answer is no longer wanted, or None.
Every call raises ``ServiceError`` and nothing else on purpose.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from google.protobuf.message import Message

from service.contrast import Question
from service.errors import InvalidRequest, ServiceError, TextCountOutOfRange
from service.explanation_replies import write_alternatives, write_contrast, write_explanation, write_what_if
from service.metrics import Metrics
from service.models.registry import Models
from service.models.served_model import ServedModel
from service.pb import interlinear_pb2 as pb
from service.replies import write_listed_model, write_metadata, write_model, write_options, write_translation
from service.requests import (
    read_intervention,
    read_limit,
    read_options,
    read_views,
    refuse_given_prefix,
    refuse_options,
    refuse_several,
)
from service.status import TRANSIENT, status_of
from service.translation import Translation, TranslationOptions

_FIELDS_OF_ONE_TEXT = ("text", "alignment_options.method")  # the reverse model may take one translation, not another

ResponseT = TypeVar("ResponseT", bound=Message)
Behavior = Callable[[Any, float | None], Awaitable[Message]]


class Calls:
    """Every call of the proto that asks for an answer of a model."""

    def __init__(self, models: Models, max_texts: int, metrics: Metrics) -> None:
        self._models = models
        self._max_texts = max_texts
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

    async def translate(self, request: pb.TranslateRequest, deadline: float | None) -> pb.TranslateResponse:
        """Return a result for each text, or raise what is wrong with the whole call."""
        if not 1 <= len(request.texts) <= self._max_texts:
            message = f"texts has {len(request.texts)} texts; send 1 to {self._max_texts} in one request"
            raise TextCountOutOfRange("texts", message)
        aligned = request.alignment != pb.ALIGNMENT_DETAIL_UNSPECIFIED
        options = read_options(request.options, aligned, request.alignment_options)
        with self._leased(request) as model:
            outcomes = await asyncio.gather(*(_outcome(model, text, options, deadline) for text in request.texts))
            _raise_for_all(outcomes)
            return pb.TranslateResponse(
                results=[
                    self._result(f"texts[{index}]", outcome, request.alignment, request.matrix_encoding)
                    for index, outcome in enumerate(outcomes)
                ],
                effective_options=write_options(options, model.manifest),
                metadata=write_metadata(model),
            )

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
            sides = None
            if pb.EXPLANATION_VIEW_COMPONENTS in views:
                sides = await asyncio.to_thread(model.components.read, explanation.decomposition)
            response = write_explanation(explanation, views, request.matrix_encoding, sides)
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
        return pb.ListModelsResponse(models=[write_listed_model(model) for model in self._models.listed()])

    async def get_model(self, request: pb.GetModelRequest, deadline: float | None) -> pb.GetModelResponse:
        """Return one model with its card and files."""
        with self._models.leased(request.name, "", "") as model:
            return pb.GetModelResponse(model=write_model(model))

    def _leased(self, request: Any) -> AbstractContextManager[ServedModel]:
        """Lend the model that ``request`` is meant for."""
        return self._models.leased(request.model, request.source_language_code, request.target_language_code)

    def _result(
        self, field: str, outcome: Translation | ServiceError, detail: int, encoding: int
    ) -> pb.TranslationResult:
        if isinstance(outcome, ServiceError):
            self._metrics.requests.errors.labels(outcome.reason).inc()
            return pb.TranslationResult(error=status_of(outcome, field))
        return pb.TranslationResult(translation=write_translation(outcome, detail, encoding))


async def _outcome(
    model: ServedModel, text: str, options: TranslationOptions, deadline: float | None
) -> Translation | ServiceError:
    try:
        return await model.translator.translate(text, options, deadline)
    except ServiceError as error:
        return error


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


def _raise_for_all(outcomes: Sequence[Translation | ServiceError]) -> None:
    """Raise what is wrong with the whole call: its options, or a service that could take none of its texts."""
    failures = [outcome for outcome in outcomes if isinstance(outcome, ServiceError)]
    for failure in failures:
        of_one_text = isinstance(failure, InvalidRequest) and failure.field in _FIELDS_OF_ONE_TEXT
        if not isinstance(failure, TRANSIENT) and not of_one_text:
            raise failure
    if len(failures) == len(outcomes) and all(isinstance(failure, TRANSIENT) for failure in failures):
        raise failures[0]
