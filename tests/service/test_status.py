from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from service import errors
from service.status import CODES, DOMAIN, code_of, http_status_of, internal_status, pushback, status_of


def tree(root: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
    for child in root.__subclasses__():
        yield child
        yield from tree(child)


# others, wherever they are defined, are kinds of these and have their reasons
EVERY_ERROR = [kind for kind in tree(errors.ServiceError) if kind.__module__ == errors.__name__]


def example(kind: type[errors.ServiceError]) -> errors.ServiceError:
    if issubclass(kind, errors.InvalidRequest):
        return kind("options.beam_size", "beam_size is 17; allowed are 1 to 16")
    if issubclass(kind, errors.Busy):
        return kind("512 sentences wait already", 1.25)
    return kind("because")


def unpack(status: status_pb2.Status, kind: Any) -> Any:
    message = kind()
    assert any(detail.Unpack(message) for detail in status.details), f"no {kind.DESCRIPTOR.name}"
    return message


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_every_error_class_has_a_code(kind: type[errors.ServiceError]) -> None:
    assert code_of(example(kind)) is not grpc.StatusCode.OK


def test_an_error_class_that_nobody_mapped_is_noticed() -> None:
    with pytest.raises(KeyError, match="ServiceError"):
        code_of(errors.ServiceError("the root itself has no code"))


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_every_status_names_its_reason_and_domain(kind: type[errors.ServiceError]) -> None:
    info = unpack(status_of(example(kind)), error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (kind.reason, DOMAIN)


def test_every_error_class_has_an_http_status_and_sizes_and_media_types_one_of_their_own() -> None:
    statuses = {kind: http_status_of(example(kind)) for kind in EVERY_ERROR}
    assert all(400 <= status < 600 for status in statuses.values())
    assert statuses[errors.MessageInvalid] == 400
    assert statuses[errors.MediaTypeInvalid] == 415
    assert statuses[errors.MethodUnknown] == 404
    assert statuses[errors.CredentialsMissing] == 401
    assert statuses[errors.PermissionDenied] == 403
    assert statuses[errors.RequestTooLarge] == statuses[errors.ResponseTooLarge] == 413
    assert statuses[errors.QueueFull] == 429
    assert http_status_of(None) == 500


def test_reasons_are_all_different() -> None:
    reasons = [kind.reason for kind in EVERY_ERROR]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize("kind", [kind for kind in EVERY_ERROR if issubclass(kind, errors.Busy | errors.Unavailable)])
def test_whatever_passes_by_itself_says_when_to_try_again(kind: type[errors.ServiceError]) -> None:
    delay = unpack(status_of(example(kind)), error_details_pb2.RetryInfo).retry_delay
    assert delay.ToTimedelta().total_seconds() > 0


def test_an_invalid_request_names_the_field() -> None:
    violations = unpack(status_of(example(errors.OptionOutOfRange)), error_details_pb2.BadRequest).field_violations
    assert [(fault.field, fault.reason) for fault in violations] == [("options.beam_size", "OPTION_OUT_OF_RANGE")]


def test_the_field_of_one_text_among_many_can_be_told_more_exactly() -> None:
    status = status_of(errors.SourceEmpty("text", "the source is empty"), "texts[3]")
    assert unpack(status, error_details_pb2.BadRequest).field_violations[0].field == "texts[3]"


def test_a_full_queue_says_when_to_retry_in_both_ways() -> None:
    error = errors.QueueFull("512 sentences wait already", 1.25)
    delay = unpack(status_of(error), error_details_pb2.RetryInfo).retry_delay
    assert (delay.seconds, delay.nanos) == (1, 250_000_000)
    assert pushback(error) == (("grpc-retry-pushback-ms", "1250"),)


def test_a_reply_too_large_is_not_worth_a_retry() -> None:
    assert pushback(errors.ResponseTooLarge("too large")) == (("grpc-retry-pushback-ms", "-1"),)


def test_an_unforeseen_failure_tells_nothing_but_the_request_id() -> None:
    status = internal_status("abc")
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert "abc" in status.message
    assert unpack(status, error_details_pb2.ErrorInfo).reason == "INTERNAL"


def test_no_class_in_the_table_repeats_its_parent() -> None:
    mapped_twice = [kind for kind in CODES for parent in CODES if kind is not parent and issubclass(kind, parent)]
    assert not mapped_twice
