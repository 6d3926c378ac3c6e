"""How long a part of a document may be."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.manifest import Limits, read
from bundle.tokenizer import Tokenizer
from service.guard import Norms
from service.intake import Intake
from service.segmentation import Segmenter
from service.settings import Settings

EMBEDDED = read(Settings().bundle)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(Settings().bundle / "tokenizer.model")


def longest(tokenizer: Tokenizer, limits: Limits, ratio: float | None) -> int:
    """Return how many tokens, end of sentence included, a part of a document may have."""
    intake = Intake(tokenizer, limits, ratio)
    return max((tokens + 1 for tokens in range(1, 130) if intake.fits(" ".join(["the"] * tokens))), default=0)


def test_a_part_is_so_short_that_its_expected_translation_leaves_room(tokenizer: Tokenizer) -> None:
    ratio = Norms.of(EMBEDDED).length_ratio
    assert ratio is not None
    assert longest(tokenizer, EMBEDDED.limits, ratio) == 72
    assert 72 * ratio <= 0.8 * EMBEDDED.limits.max_target_tokens < 73 * ratio
    assert longest(tokenizer, EMBEDDED.limits, 2.0) == 40


def test_where_the_bundle_says_nothing_a_part_has_seven_tenths_of_the_target_limit(tokenizer: Tokenizer) -> None:
    assert longest(tokenizer, EMBEDDED.limits, None) == 70


def test_a_part_is_never_longer_than_a_source_may_be(tokenizer: Tokenizer) -> None:
    assert longest(tokenizer, Limits(30, 500), 1.0) == 30
    assert longest(tokenizer, Limits(30, 500), 0.01) == 30


@given(st.sampled_from([5e-324, 1e-300, 1e300, math.inf, math.nan]))
def test_any_ratio_that_a_manifest_may_lead_to_can_be_used(ratio: float) -> None:
    tokenizer = Tokenizer(Settings().bundle / "tokenizer.model")
    assert Intake(tokenizer, EMBEDDED.limits, ratio).fits("") in (True, False)


def test_a_sentence_that_fits_but_whose_translation_may_not_is_cut_in_two(tokenizer: Tokenizer) -> None:
    intake = Intake(tokenizer, EMBEDDED.limits, Norms.of(EMBEDDED).length_ratio)
    sentence = " ".join(["the house is small,"] * 16)
    assert 72 < len(tokenizer.encode_ids(sentence)) + 1 <= EMBEDDED.limits.max_source_tokens
    segmenter = Segmenter("en", intake.fits)
    assert len([*segmenter.feed(sentence), *segmenter.finish()]) == 2
    assert intake.source(sentence).words, "alone it is taken as it is"
