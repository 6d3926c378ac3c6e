"""The whole house in a minute: a task with a known answer is trained, exported, served, and asked over gRPC."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict

from exporters.export import ExportOptions, export
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from tests.reversal import SEED, digit_strings, train_reversal
from tests.service.edge import served

pytestmark = pytest.mark.slow

ASKED = digit_strings(60, seed=SEED + 2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_reversal(tmp_path_factory.mktemp("reversal"))


@pytest.fixture(scope="module", params=["float32", "int8"])
def bundle(request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("bundles") / request.param
    export(checkpoint, folder, ExportOptions(precision=request.param, bundle_id="reversal", tables_sentences=4000))
    return folder


@pytest_asyncio.fixture
async def channel(bundle: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with served(bundle) as running, grpc.aio.insecure_channel(running.address) as channel:
        yield channel


async def test_digits_come_back_reversed_with_their_alignment_on_the_anti_diagonal(channel: grpc.aio.Channel) -> None:
    stub = pb_grpc.TranslationServiceStub(channel)
    request = pb.TranslateRequest(texts=ASKED, alignment=pb.ALIGNMENT_DETAIL_PIECES)
    results = (await stub.Translate(request)).results
    hypotheses = [result.translation.hypotheses[0] for result in results]
    right = [hypothesis.text == digits[::-1] for hypothesis, digits in zip(hypotheses, ASKED, strict=True)]
    assert np.mean(right) >= 0.95
    on_the_line = total = 0
    for hypothesis, digits, correct in zip(hypotheses, ASKED, right, strict=True):
        if correct:
            weights = _array(hypothesis.alignment.piece_weights)[1 : len(digits) + 1, 1 : len(digits) + 1]
            on_the_line += int((weights.argmax(axis=1) == np.arange(len(digits))[::-1]).sum())
            total += len(digits)
    assert on_the_line / total >= 0.95


async def test_a_thousand_answers_are_the_same_to_the_bit_alone_and_in_any_company(channel: grpc.aio.Channel) -> None:
    translate = pb_grpc.TranslationServiceStub(channel).Translate
    generator = random.Random(SEED)
    sentences = digit_strings(1000, seed=SEED + 3)
    beam_sizes = [generator.choice((1, 4)) for _ in sentences]

    async def answers(rows: list[int]) -> dict[int, dict[str, object]]:
        """Ask for ``rows``, which share a beam size, in one call."""
        request = pb.TranslateRequest(texts=[sentences[row] for row in rows], alignment=pb.ALIGNMENT_DETAIL_PIECES)
        request.options.beam_size = beam_sizes[rows[0]]
        return dict(zip(rows, map(_told, (await translate(request)).results), strict=True))

    alone: dict[int, dict[str, object]] = {}
    for row in range(len(sentences)):
        alone |= await answers([row])
    for _ in range(2):
        calls = []
        for size in (1, 4):
            rows = [row for row, beam_size in enumerate(beam_sizes) if beam_size == size]
            generator.shuffle(rows)
            while rows:
                count = generator.randint(1, 40)
                calls.append(rows[:count])
                rows = rows[count:]
        generator.shuffle(calls)
        together: dict[int, dict[str, object]] = {}
        for wave in range(0, len(calls), 12):  # so many calls at once that sentences join and leave all the time
            for found in await asyncio.gather(*map(answers, calls[wave : wave + 12])):
                together |= found
        assert together == alone


async def test_every_explanation_adds_up(channel: grpc.aio.Channel) -> None:
    stub = pb_grpc.ExplanationServiceStub(channel)
    for digits in ASKED[:20]:
        for target in (None, digits[::-1]):
            reply = await stub.Explain(pb.ExplainRequest(text=digits, target=target))
            scores, weights = _array(reply.attention_scores), _array(reply.attention_weights)
            terms = [_array(term.contribution) for term in reply.decomposition.terms]
            assert len(terms) == 9 and reply.forced == (target is not None)
            np.testing.assert_allclose(sum(terms), scores, atol=1e-4 * np.abs(scores).max())
            assert reply.decomposition.reconstruction_error <= 1e-4
            np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
            softmax = np.exp(scores - scores.max(axis=1, keepdims=True))
            np.testing.assert_allclose(softmax / softmax.sum(axis=1, keepdims=True), weights, atol=1e-5)
            assert sum(term.share for term in reply.decomposition.terms) == pytest.approx(1)
            assert reply.decomposition.tables.sentences == 4000


async def test_the_given_target_of_our_own_translation_is_explained_as_our_own(channel: grpc.aio.Channel) -> None:
    stub = pb_grpc.ExplanationServiceStub(channel)
    own = await stub.Explain(pb.ExplainRequest(text=ASKED[0], options=pb.DecodingOptions(beam_size=1)))
    given = await stub.Explain(pb.ExplainRequest(text=ASKED[0], target=own.hypothesis.text))
    assert given.hypothesis.text == own.hypothesis.text
    assert _array(given.attention_scores).tobytes() == _array(own.attention_scores).tobytes()
    assert given.hypothesis.log_probability == pytest.approx(own.hypothesis.log_probability, abs=1e-5)


def _array(matrix: pb.Matrix) -> np.ndarray:
    return np.frombuffer(matrix.packed_float32, "<f4").reshape(matrix.rows, matrix.columns)


def _told(result: pb.TranslationResult) -> dict[str, object]:
    """Return a result without what may differ from call to call: how long it took, and beside whom."""
    told: dict[str, object] = MessageToDict(result)["translation"]
    return {name: value for name, value in told.items() if name not in ("timings", "batchSize")}
