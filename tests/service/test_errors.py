import inspect

import pytest

from service import errors
from service.errors import InvalidRequest, QueueFull, ServiceError, SourceTooLong


def classes() -> list[type[ServiceError]]:
    found = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, ServiceError)]
    assert len(found) > 15
    return found


def test_every_error_has_a_reason_of_its_own() -> None:
    reasons = [error.reason for error in classes()]
    assert len(set(reasons)) == len(reasons)
    assert all(reason.replace("_", "").isalpha() and reason.isupper() for reason in reasons)


@pytest.mark.parametrize("error", [error for error in classes() if not error.__subclasses__()])
def test_the_tree_drawn_at_the_top_names_every_leaf_with_its_reason(error: type[ServiceError]) -> None:
    line = next(line for line in (errors.__doc__ or "").splitlines() if f"─ {error.__name__} " in line)
    assert error.reason in line


def test_an_invalid_request_names_its_field_and_says_what_is_wrong() -> None:
    with pytest.raises(InvalidRequest, match="612 tokens") as caught:
        raise SourceTooLong("text", "source has 612 tokens; this bundle allows 256. Split the sentence.")
    assert caught.value.field == "text"


def test_a_full_queue_says_when_to_come_back() -> None:
    assert QueueFull("512 sentences wait already", retry_after_seconds=0.5).retry_after_seconds == 0.5
