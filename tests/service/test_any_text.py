"""Whatever can be printed can be translated, explained and aligned, and its words stand where the reply says."""

import asyncio
from pathlib import Path

import grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from tests.service.edge import served

PRINTABLE = st.characters(exclude_categories=["Cs", "Cc"])
PIECES = [
    "ﬁ",
    "e\u0301",
    "👩\u200d💻",
    "🇫🇷",
    "日本",
    "שלום",
    "\u202e",
    "\u200b",
    "\u00ad",
    "\u2581",
    " ",
    "l'",
    "the ",
    "…",
]
texts = st.lists(st.one_of(PRINTABLE, st.sampled_from(PIECES)), min_size=1, max_size=16).map("".join)


@given(st.lists(st.tuples(texts, texts), min_size=20, max_size=20))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_printable_text_fails(tiny_bundle: Path, pairs: list[tuple[str, str]]) -> None:
    asyncio.run(_ask(tiny_bundle, pairs))


async def _ask(bundle: Path, pairs: list[tuple[str, str]]) -> None:
    async with served(bundle) as running, grpc.aio.insecure_channel(running.address) as channel:
        translate = pb_grpc.TranslationServiceStub(channel).Translate
        explain = pb_grpc.ExplanationServiceStub(channel).Explain
        request = pb.TranslateRequest(texts=[source for source, _ in pairs], alignment=pb.ALIGNMENT_DETAIL_PIECES)
        for (source, target), result in zip(pairs, (await translate(request)).results, strict=True):
            if result.WhichOneof("result") == "error":
                assert _is_blank(source), (source, result.error.message)
                continue
            _check(result.translation.source, source)
            if not _is_blank(target):
                reply = await explain(pb.ExplainRequest(text=source, target=target))
                _check(reply.hypothesis.target, target)


def _is_blank(text: str) -> bool:
    """Return whether there is nothing to see in ``text``: the only reason to refuse one of this length."""
    return not "".join(c for c in text if c.isprintable()).replace("\u2581", " ").strip()


def _check(told: pb.TokenizedText, text: str) -> None:
    assert told.text == text and told.words
    for word in told.words:
        span = word.span
        assert text[span.start_code_point : span.end_code_point] == word.text
        assert text.encode()[span.start_byte : span.end_byte].decode() == word.text
        utf16 = text.encode("utf-16-le")[2 * span.start_utf16 : 2 * span.end_utf16]
        assert utf16.decode("utf-16-le") == word.text
