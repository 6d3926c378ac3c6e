"""The gRPC edge: our three services, health and reflection on one server, and how it drains."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from bundle.manifest import Manifest
from service.errors import (
    InvalidRequest,
    InvalidSettings,
    LanguagePairNotFound,
    ModelNotFound,
    OptionOutOfRange,
    ServiceError,
    TextCountOutOfRange,
)
from service.explainer import Explainer
from service.interceptor import CallInterceptor, Context
from service.messages import (
    read_options,
    read_views,
    refuse_options,
    write_explanation,
    write_model,
    write_options,
    write_translation,
)
from service.metrics import Metrics
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from service.settings import Settings
from service.status import TRANSIENT, status_of
from service.translator import Translation, TranslationOptions, Translator

SERVICES = tuple(service.full_name for service in pb.DESCRIPTOR.services_by_name.values())

_MINUTE_MS = 60_000
_LAST_SECONDS = 0.2  # for streams that never end by themselves, such as health Watch
_SHOWN_NAME = 64  # characters of a caller's name for something that an error repeats


@dataclass(frozen=True)
class ServedModel:
    """A loaded bundle and the use cases that answer from it.

    Attributes:
        manifest: Of the bundle.
        digest: Of the manifest.
        card: Model card, Markdown.
        device: ``cpu`` or ``cuda:N``.
        translator: Answers ``Translate``.
        explainer: Answers ``Explain``.
    """

    manifest: Manifest
    digest: str
    card: str
    device: str
    translator: Translator
    explainer: Explainer

    def check_name(self, name: str) -> None:
        """Accept the model's own name, or none.

        Raises:
            ModelNotFound: Another name.
        """
        if name not in ("", self.manifest.bundle_id):
            raise ModelNotFound(f"no model {name[:_SHOWN_NAME]!r} is loaded; loaded is {self.manifest.bundle_id!r}")

    def check_languages(self, source: str, target: str) -> None:
        """Accept the model's own pair, narrower tags of it, or none.

        Raises:
            LanguagePairNotFound: Another pair.
        """
        own = self.manifest
        if not _is_within(source, own.source_language) or not _is_within(target, own.target_language):
            asked = (
                f"{source[:_SHOWN_NAME] or own.source_language!r} to {target[:_SHOWN_NAME] or own.target_language!r}"
            )
            loaded = f"{own.source_language!r} to {own.target_language!r}"
            raise LanguagePairNotFound(f"no loaded model translates {asked}; {own.bundle_id!r} translates {loaded}")

    def metadata(self) -> pb.ResponseMetadata:
        """Return what a reply says of this model."""
        return pb.ResponseMetadata(
            model=self.manifest.bundle_id,
            model_version=self.manifest.version,
            model_digest=self.digest,
            device=self.device,
        )


class _TranslationService(pb_grpc.TranslationServiceServicer):
    def __init__(self, model: ServedModel, max_texts: int, metrics: Metrics) -> None:
        self._model = model
        self._max_texts = max_texts
        self._metrics = metrics

    async def Translate(self, request: pb.TranslateRequest, context: Context) -> pb.TranslateResponse:
        self._model.check_name(request.model)
        self._model.check_languages(request.source_language_code, request.target_language_code)
        if not 1 <= len(request.texts) <= self._max_texts:
            message = f"texts has {len(request.texts)} texts; send 1 to {self._max_texts} in one request"
            raise TextCountOutOfRange("texts", message)
        options = read_options(request.options, request.alignment != pb.ALIGNMENT_DETAIL_UNSPECIFIED)
        deadline = _deadline(context)
        outcomes = await asyncio.gather(*(self._outcome(text, options, deadline) for text in request.texts))
        _raise_for_all(outcomes)
        return pb.TranslateResponse(
            results=[
                self._result(f"texts[{index}]", outcome, request.alignment, request.matrix_encoding)
                for index, outcome in enumerate(outcomes)
            ],
            effective_options=write_options(options, self._model.manifest),
            metadata=self._model.metadata(),
        )

    async def _outcome(
        self, text: str, options: TranslationOptions, deadline: float | None
    ) -> Translation | ServiceError:
        try:
            return await self._model.translator.translate(text, options, deadline)
        except ServiceError as error:
            return error

    def _result(
        self, field: str, outcome: Translation | ServiceError, detail: int, encoding: int
    ) -> pb.TranslationResult:
        if isinstance(outcome, ServiceError):
            self._metrics.requests.errors.labels(outcome.reason).inc()
            return pb.TranslationResult(error=status_of(outcome, field))
        return pb.TranslationResult(translation=write_translation(outcome, detail, encoding))


class _ExplanationService(pb_grpc.ExplanationServiceServicer):
    def __init__(self, model: ServedModel) -> None:
        self._model = model

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:
        model = self._model
        model.check_name(request.model)
        model.check_languages(request.source_language_code, request.target_language_code)
        views = read_views(request.views)
        target = request.target if request.HasField("target") else None
        if target is not None:
            refuse_options(request.options)
        options = read_options(request.options, alignment=True)
        if options.n_best != 1:
            message = f"num_hypotheses is {options.n_best}; one hypothesis is explained, leave it out"
            raise OptionOutOfRange("options.num_hypotheses", message)
        explanation = await model.explainer.explain(request.text, target, options, _deadline(context))
        response = write_explanation(explanation, views, request.matrix_encoding)
        if target is None:
            response.effective_options.CopyFrom(write_options(options, model.manifest))
        response.metadata.CopyFrom(model.metadata())
        return response


class _ModelService(pb_grpc.ModelServiceServicer):
    def __init__(self, model: ServedModel) -> None:
        self._model = model

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[self._describe()])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        self._model.check_name(request.name)
        model = self._describe()
        model.card = self._model.card
        for name, file in sorted(self._model.manifest.files.items()):
            model.files.add(name=name, sha256=file.sha256, size_bytes=file.size_bytes)
        return pb.GetModelResponse(model=model)

    def _describe(self) -> pb.Model:
        return write_model(self._model.manifest, self._model.digest, self._model.device)


@dataclass(frozen=True)
class GrpcServer:
    """A server that is bound, and not yet started.

    Attributes:
        server: grpc.aio's own.
        port: Where it listens, also when the address asked for port 0.
        calls: Every call of our services passes it.
        health: What health checks and watches see.
    """

    server: grpc.aio.Server
    port: int
    calls: CallInterceptor
    health: health.aio.HealthServicer

    async def start(self) -> None:
        """Listen, and tell health checks so."""
        await self.server.start()
        for name in ("", *SERVICES):
            await self.health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, delay_seconds: float, limit_seconds: float) -> bool:
        """Stop without losing an accepted call; return whether all of them were answered.

        Health says NOT_SERVING first, so that balancers look elsewhere, while calls are still taken for
        ``delay_seconds``. Later ones are refused with UNAVAILABLE. Then the accepted ones are finished, for at most
        ``limit_seconds``, and the server stops.
        """
        with contextlib.suppress(TimeoutError):  # a watcher that does not read must not hold up the others
            await asyncio.wait_for(self.health.enter_graceful_shutdown(), timeout=1.0)
        await asyncio.sleep(delay_seconds)
        self.calls.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.calls.quiet(), timeout=limit_seconds)
        answered = self.calls.in_flight == 0
        await self.server.stop(_LAST_SECONDS)
        return answered


def create_server(model: ServedModel, settings: Settings, metrics: Metrics) -> GrpcServer:
    """Return a server for ``model``, bound to ``settings.grpc_address``; call it inside the loop that will run it.

    Raises:
        InvalidSettings: Nothing can listen on that address.
    """
    calls = CallInterceptor(metrics, settings.max_response_bytes)
    server = grpc.aio.server(interceptors=[calls], options=_options(settings))
    pb_grpc.add_TranslationServiceServicer_to_server(_TranslationService(model, settings.max_texts, metrics), server)
    pb_grpc.add_ExplanationServiceServicer_to_server(_ExplanationService(model), server)
    pb_grpc.add_ModelServiceServicer_to_server(_ModelService(model), server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(settings.grpc_address)
    except RuntimeError:
        address = settings.grpc_address
        message = f"INTERLINEAR_GRPC_ADDRESS={address}: cannot listen there; is it in use, or not this machine's?"
        raise InvalidSettings(message) from None
    return GrpcServer(server, port, calls, checks)


def _options(settings: Settings) -> Sequence[tuple[str, int]]:
    """Return every gRPC option that matters, none left to a default that may change."""
    return (
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_send_message_length", settings.max_response_bytes),
        # Admission is the scheduler's: it answers RESOURCE_EXHAUSTED with a time to retry. Below these limits gRPC
        # itself answers a burst of more than about 1,000 calls with a bare CANCELLED.
        ("grpc.server.max_pending_requests", 1_000_000),
        ("grpc.server.max_pending_requests_hard_limit", 1_000_000),
        ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share its calls
        ("grpc.keepalive_time_ms", 5 * _MINUTE_MS),
        ("grpc.keepalive_timeout_ms", _MINUTE_MS // 3),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _MINUTE_MS // 6),
    )


def _deadline(context: Context) -> float | None:
    """Return the caller's deadline in the loop's time; None when it set none."""
    remaining = context.time_remaining()
    return None if remaining is None else asyncio.get_running_loop().time() + remaining


def _raise_for_all(outcomes: Sequence[Translation | ServiceError]) -> None:
    """Raise what is wrong with the whole call: its options, or a service that could take none of its texts."""
    failures = [outcome for outcome in outcomes if isinstance(outcome, ServiceError)]
    for failure in failures:
        if not isinstance(failure, TRANSIENT) and not (isinstance(failure, InvalidRequest) and failure.field == "text"):
            raise failure
    if len(failures) == len(outcomes) and all(isinstance(failure, TRANSIENT) for failure in failures):
        raise failures[0]


def _is_within(requested: str, own: str) -> bool:
    """Return whether a language tag is ``own`` or narrower (RFC 4647 lookup: "en-GB" is within "en"), or empty."""
    return not requested or f"{requested.lower()}-".startswith(f"{own.lower()}-")
