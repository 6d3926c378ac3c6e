import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.search import SearchOptions
from service.batch import Job, Seat
from service.lane import encoder_calls


def seats(lengths: list[int]) -> list[Seat]:
    return [Seat(Job(tuple(range(tokens)), SearchOptions(8))) for tokens in lengths]


def cut(lengths: list[int], most_tokens: int = 2048) -> list[list[int]]:
    return [[len(seat.job.source_ids) for seat in call] for call in encoder_calls(seats(lengths), most_tokens)]


@pytest.mark.parametrize(
    ("lengths", "calls"),
    [
        ([], []),
        ([300], [[300]]),
        ([16, 3, 9], [[16, 3, 9]]),
        ([20, 5], [[5, 20]]),  # a call costs more than to pad one sentence by so little
        ([100, 5, 8, 12, 7], [[5, 8, 12, 7], [100]]),
        ([5, 100, 90, 8, 12, 7, 110], [[5, 8, 12, 7], [90, 100, 110]]),
    ],
)
def test_sentences_of_like_length_share_a_call_of_the_encoder(lengths: list[int], calls: list[list[int]]) -> None:
    assert cut(lengths) == calls


@given(lengths=st.lists(st.integers(1, 300), max_size=60), most_tokens=st.sampled_from([16, 200, 2048]))
def test_everybody_is_encoded_once_and_no_call_is_too_large_or_mostly_padding(
    lengths: list[int], most_tokens: int
) -> None:
    given_seats = seats(lengths)
    calls = encoder_calls(given_seats, most_tokens)
    assert sorted(id(seat) for call in calls for seat in call) == sorted(map(id, given_seats))
    for call in calls:
        padded = [-(-len(seat.job.source_ids) // 16) * 16 for seat in call]
        assert len(call) == 1 or max(padded) * len(call) <= most_tokens
        assert max(padded) * len(call) <= 5 * sum(padded)
