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
    │   ├── StreamInvalid                 STREAM_INVALID
    │   ├── LargerThanQuota               LARGER_THAN_QUOTA
    │   └── MediaTypeInvalid              MEDIA_TYPE_INVALID
    ├── Unauthenticated                   who asks is not known
    │   ├── CredentialsMissing            CREDENTIALS_MISSING
    │   ├── CredentialsInvalid            CREDENTIALS_INVALID
    │   └── CredentialsExpired            CREDENTIALS_EXPIRED
    ├── PermissionDenied                  PERMISSION_DENIED
    ├── NotFound                          nothing here by that name
    │   ├── ModelNotFound                 MODEL_NOT_FOUND
    │   ├── ServiceNotFound               SERVICE_NOT_FOUND
    │   └── LanguagePairNotFound          LANGUAGE_PAIR_NOT_FOUND
    ├── MethodUnknown                     METHOD_UNKNOWN
    ├── Unsupported                       this model cannot do it, and no retry will help
    │   ├── StatisticsMissing             STATISTICS_MISSING
    │   ├── AttentionMissing              ATTENTION_MISSING
    │   ├── InterventionUnsupported       INTERVENTION_UNSUPPORTED
    │   ├── PosteriorMissing              POSTERIOR_MISSING
    │   ├── ReverseModelMissing           REVERSE_MODEL_MISSING
    │   ├── ModelRefused                  MODEL_REFUSED
    │   └── ModelInUse                    MODEL_IN_USE
    ├── Busy                              later, with retry_after_seconds
    │   ├── QueueFull                     QUEUE_FULL
    │   ├── QuotaExceeded                 QUOTA_EXCEEDED
    │   ├── ConcurrencyExceeded           CONCURRENCY_EXCEEDED
    │   └── MemoryFull                    MEMORY_FULL
    ├── RequestTooLarge                   REQUEST_TOO_LARGE
    ├── ResponseTooLarge                  RESPONSE_TOO_LARGE
    ├── DeadlinePassed                    DEADLINE_PASSED
    │   └── DeadlineTooShort              DEADLINE_TOO_SHORT
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


class StreamInvalid(InvalidRequest):
    """A stream's messages come in a wrong order, or a document has too much in a row that is not to be translated."""

    reason: ClassVar[str] = "STREAM_INVALID"


class LargerThanQuota(InvalidRequest):
    """The request has more characters than its sender's quota lets pass at once, however long it waits."""

    reason: ClassVar[str] = "LARGER_THAN_QUOTA"


class MediaTypeInvalid(InvalidRequest):
    """A body posted over HTTP does not say that it is JSON."""

    reason: ClassVar[str] = "MEDIA_TYPE_INVALID"


class Unauthenticated(ServiceError):
    """The service asks callers who they are, and this one could not tell."""

    reason: ClassVar[str] = "UNAUTHENTICATED"


class CredentialsMissing(Unauthenticated):
    """The call carries neither an API key nor a client certificate that the service knows."""

    reason: ClassVar[str] = "CREDENTIALS_MISSING"


class CredentialsInvalid(Unauthenticated):
    """The API key is no key of this service."""

    reason: ClassVar[str] = "CREDENTIALS_INVALID"


class CredentialsExpired(Unauthenticated):
    """The API key, or what the service knows of the certificate, was valid until a day that has passed."""

    reason: ClassVar[str] = "CREDENTIALS_EXPIRED"


class PermissionDenied(ServiceError):
    """The caller has no role that allows this call, or calls a listener that is for this machine by another name."""

    reason: ClassVar[str] = "PERMISSION_DENIED"


class NotFound(ServiceError):
    """The request names something that this service does not serve."""

    reason: ClassVar[str] = "NOT_FOUND"


class ModelNotFound(NotFound):
    """No model of that name is loaded."""

    reason: ClassVar[str] = "MODEL_NOT_FOUND"


class ServiceNotFound(NotFound):
    """A health check asks for a service that this listener does not have."""

    reason: ClassVar[str] = "SERVICE_NOT_FOUND"


class LanguagePairNotFound(NotFound):
    """No loaded model translates between these two languages."""

    reason: ClassVar[str] = "LANGUAGE_PAIR_NOT_FOUND"


class MethodUnknown(ServiceError):
    """There is no such call, or nothing at that path, on this listener."""

    reason: ClassVar[str] = "METHOD_UNKNOWN"


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


class ModelRefused(Unsupported):
    """A bundle cannot be loaded: damaged, hostile or too large for the budget; what was loaded stays."""

    reason: ClassVar[str] = "MODEL_REFUSED"


class ModelInUse(Unsupported):
    """The model answers requests that name none, so it cannot be unloaded before another one does."""

    reason: ClassVar[str] = "MODEL_IN_USE"


class Busy(ServiceError):
    """Too much is asked at once; the same request may succeed later.

    Attributes:
        retry_after_seconds: When to try again.
    """

    reason: ClassVar[str] = "BUSY"

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class QueueFull(Busy):
    """The queue is full; nothing was started."""

    reason: ClassVar[str] = "QUEUE_FULL"


class QuotaExceeded(Busy):
    """The caller has used up what it may send in this time; nothing was started."""

    reason: ClassVar[str] = "QUOTA_EXCEEDED"


class ConcurrencyExceeded(Busy):
    """As many calls are open as there may be, of this caller or, of those that all may make, at all."""

    reason: ClassVar[str] = "CONCURRENCY_EXCEEDED"


class MemoryFull(Busy):
    """The process is at its memory ceiling; nothing was started."""

    reason: ClassVar[str] = "MEMORY_FULL"


class RequestTooLarge(ServiceError):
    """The request is larger than one message may be; gRPC refuses such by itself, so this is met over HTTP."""

    reason: ClassVar[str] = "REQUEST_TOO_LARGE"


class ResponseTooLarge(ServiceError):
    """The reply is larger than one message may be; the message says what to leave out."""

    reason: ClassVar[str] = "RESPONSE_TOO_LARGE"


class DeadlinePassed(ServiceError):
    """The caller's deadline passed before the answer was ready; the work has been stopped."""

    reason: ClassVar[str] = "DEADLINE_PASSED"


class DeadlineTooShort(DeadlinePassed):
    """The deadline will pass before the sentences that wait already are done; nothing was started."""

    reason: ClassVar[str] = "DEADLINE_TOO_SHORT"


class Unavailable(ServiceError):
    """This process cannot take the request now; another replica may.

    Attributes:
        retry_after_seconds: When to try again where there is no other.
    """

    reason: ClassVar[str] = "UNAVAILABLE"
    retry_after_seconds: ClassVar[float] = 1.0


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
