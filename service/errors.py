"""What the service refuses, and why.

    ServiceError
    ├── InvalidRequest                    the caller must change the request; names the field
    │   ├── SourceEmpty                   SOURCE_EMPTY
    │   ├── SourceTooLong                 SOURCE_TOO_LONG
    │   ├── TextInvalid                   TEXT_INVALID
    │   ├── TargetEmpty                   TARGET_EMPTY
    │   ├── TargetTooLong                 TARGET_TOO_LONG
    │   ├── OptionOutOfRange              OPTION_OUT_OF_RANGE
    │   ├── AlternativeInvalid            ALTERNATIVE_INVALID
    │   ├── TextCountOutOfRange           TEXT_COUNT_OUT_OF_RANGE
    │   ├── UnknownEnumValue              UNKNOWN_ENUM_VALUE
    │   ├── MessageInvalid                MESSAGE_INVALID
    │   └── MediaTypeInvalid              MEDIA_TYPE_INVALID
    ├── NotFound                          nothing here by that name
    │   ├── ModelNotFound                 MODEL_NOT_FOUND
    │   └── LanguagePairNotFound          LANGUAGE_PAIR_NOT_FOUND
    ├── Unsupported                       this model cannot do it, and no retry will help
    │   ├── StatisticsMissing             STATISTICS_MISSING
    │   ├── AttentionMissing              ATTENTION_MISSING
    │   ├── InterventionUnsupported       INTERVENTION_UNSUPPORTED
    │   ├── PosteriorMissing              POSTERIOR_MISSING
    │   └── ReverseModelMissing           REVERSE_MODEL_MISSING
    ├── QueueFull                         QUEUE_FULL, with retry_after_seconds
    ├── RequestTooLarge                   REQUEST_TOO_LARGE
    ├── ResponseTooLarge                  RESPONSE_TOO_LARGE
    ├── DeadlinePassed                    DEADLINE_PASSED
    ├── Unavailable                       come back later, or ask another replica
    │   ├── Draining                      DRAINING
    │   └── EngineUnready                 ENGINE_UNREADY
    └── StartupError                      the process must not listen
        ├── InvalidSettings               INVALID_SETTINGS
        ├── BundleRefused                 BUNDLE_REFUSED
        └── DeviceUnavailable             DEVICE_UNAVAILABLE

Every class has a ``reason`` that programs may compare; the message is for people: what was given, what is allowed,
what to do. A message never holds the user's text.
"""

from typing import ClassVar


class ServiceError(Exception):
    """Anything the service refuses on purpose; ``except ServiceError`` catches them all."""

    reason: ClassVar[str] = "SERVICE_ERROR"


class InvalidRequest(ServiceError):
    """The request itself is wrong: sending it again unchanged will fail again.

    Attributes:
        field: Path of the offending field in the request, in the words of the proto (``options.beam_size``).
    """

    reason: ClassVar[str] = "INVALID_REQUEST"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class SourceEmpty(InvalidRequest):
    """The source has nothing to translate: it is empty, or only spaces and characters the tokenizer removes."""

    reason: ClassVar[str] = "SOURCE_EMPTY"


class SourceTooLong(InvalidRequest):
    """The source has more tokens than the bundle allows."""

    reason: ClassVar[str] = "SOURCE_TOO_LONG"


class TextInvalid(InvalidRequest):
    """A text holds what no valid text holds, for instance a lone surrogate or a NUL character."""

    reason: ClassVar[str] = "TEXT_INVALID"


class TargetEmpty(InvalidRequest):
    """The target to explain has no token."""

    reason: ClassVar[str] = "TARGET_EMPTY"


class TargetTooLong(InvalidRequest):
    """The target to explain, or the forced prefix, has more tokens than the bundle allows."""

    reason: ClassVar[str] = "TARGET_TOO_LONG"


class OptionOutOfRange(InvalidRequest):
    """An option, an index or a part of an intervention is outside its range."""

    reason: ClassVar[str] = "OPTION_OUT_OF_RANGE"


class AlternativeInvalid(InvalidRequest):
    """The alternative to compare a word with is empty, is that word, or cannot stand there."""

    reason: ClassVar[str] = "ALTERNATIVE_INVALID"


class UnknownEnumValue(InvalidRequest):
    """An enum on the wire holds a number that this version does not know."""

    reason: ClassVar[str] = "UNKNOWN_ENUM_VALUE"


class TextCountOutOfRange(InvalidRequest):
    """A request has no text, or more than it may have."""

    reason: ClassVar[str] = "TEXT_COUNT_OUT_OF_RANGE"


class MessageInvalid(InvalidRequest):
    """The bytes received are not a message of the type that the call takes."""

    reason: ClassVar[str] = "MESSAGE_INVALID"


class MediaTypeInvalid(InvalidRequest):
    """A body posted over HTTP does not say that it is JSON."""

    reason: ClassVar[str] = "MEDIA_TYPE_INVALID"


class NotFound(ServiceError):
    """The request names something that this service does not serve."""

    reason: ClassVar[str] = "NOT_FOUND"


class ModelNotFound(NotFound):
    """No model of that name is loaded."""

    reason: ClassVar[str] = "MODEL_NOT_FOUND"


class LanguagePairNotFound(NotFound):
    """No loaded model translates between these two languages."""

    reason: ClassVar[str] = "LANGUAGE_PAIR_NOT_FOUND"


class Unsupported(ServiceError):
    """The loaded model lacks what the call needs."""

    reason: ClassVar[str] = "UNSUPPORTED"


class StatisticsMissing(Unsupported):
    """The bundle has no component tables, so attention cannot be decomposed."""

    reason: ClassVar[str] = "STATISTICS_MISSING"


class AttentionMissing(Unsupported):
    """The architecture has no attention, so there is no alignment to show."""

    reason: ClassVar[str] = "ATTENTION_MISSING"


class InterventionUnsupported(Unsupported):
    """The bundle's graphs take no attention from outside, so nothing can be changed in it."""

    reason: ClassVar[str] = "INTERVENTION_UNSUPPORTED"


class PosteriorMissing(Unsupported):
    """Links were asked for from the posterior, and the bundle's graphs do not tell what it is made of."""

    reason: ClassVar[str] = "POSTERIOR_MISSING"


class ReverseModelMissing(Unsupported):
    """The alignment method reads both directions, and no model of the reverse direction is loaded."""

    reason: ClassVar[str] = "REVERSE_MODEL_MISSING"


class QueueFull(ServiceError):
    """The queue is full; nothing was started.

    Attributes:
        retry_after_seconds: When to try again, estimated from the queue's length and how fast it has been moving.
    """

    reason: ClassVar[str] = "QUEUE_FULL"

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RequestTooLarge(ServiceError):
    """The request is larger than one message may be; gRPC refuses such by itself, so this is met over HTTP."""

    reason: ClassVar[str] = "REQUEST_TOO_LARGE"


class ResponseTooLarge(ServiceError):
    """The reply is larger than one message may be; the message says what to leave out."""

    reason: ClassVar[str] = "RESPONSE_TOO_LARGE"


class DeadlinePassed(ServiceError):
    """The caller's deadline passed before the answer was ready; the work has been stopped."""

    reason: ClassVar[str] = "DEADLINE_PASSED"


class Unavailable(ServiceError):
    """This process cannot take the request now; another replica may."""

    reason: ClassVar[str] = "UNAVAILABLE"


class Draining(Unavailable):
    """The process is shutting down: what it accepted is being finished, nothing new is taken."""

    reason: ClassVar[str] = "DRAINING"


class EngineUnready(Unavailable):
    """The engine failed or is not loaded."""

    reason: ClassVar[str] = "ENGINE_UNREADY"


class StartupError(ServiceError):
    """The process cannot serve; it must stop before it listens."""

    reason: ClassVar[str] = "STARTUP_ERROR"


class InvalidSettings(StartupError):
    """One or more settings are wrong; the message lists all of them."""

    reason: ClassVar[str] = "INVALID_SETTINGS"


class BundleRefused(StartupError):
    """The bundle is missing, damaged, or not one this service can run; the message lists every fault."""

    reason: ClassVar[str] = "BUNDLE_REFUSED"


class DeviceUnavailable(StartupError):
    """The device asked for cannot be used; the service never falls back to another one."""

    reason: ClassVar[str] = "DEVICE_UNAVAILABLE"
