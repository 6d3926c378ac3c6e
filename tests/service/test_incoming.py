import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Draining
from service.incoming import Refusal, accepted_request_id, characters_in, key_of, methods_of
from service.pb import interlinear_pb2 as pb


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"authorization": "Bearer ilk_1"}, "ilk_1"),
        ({"authorization": "bearer  ilk_1 "}, "ilk_1"),
        ({"authorization": "Bearer "}, ""),
        ({"authorization": "Basic dXNlcg=="}, None),
        ({"x-api-key": "ilk_2"}, "ilk_2"),
        ({"authorization": "Basic dXNlcg==", "x-api-key": "ilk_2"}, "ilk_2"),
    ],
)
def test_a_key_comes_as_a_bearer_or_in_a_header_of_its_own(headers: dict[str, str], key: str | None) -> None:
    assert key_of(headers) == key


@given(st.lists(st.text()), st.text(), st.text())
def test_a_request_is_charged_for_every_code_point_of_its_texts(texts: list[str], text: str, target: str) -> None:
    valid = [part.encode(errors="ignore").decode() for part in (*texts, text, target)]
    *texts, text, target = valid
    assert characters_in(pb.TranslateRequest(texts=texts, model="en-fr")) == sum(map(len, texts))
    assert characters_in(pb.ExplainRequest(text=text, target=target)) == len(text) + len(target)
    prefixed = pb.TranslateRequest(texts=texts, options=pb.DecodingOptions(forced_prefix=target))
    assert characters_in(prefixed) == sum(map(len, texts)) + len(target)
    replaced = pb.Intervention(replaced_source_words=[pb.WordReplacement(source_word=0, text=part) for part in texts])
    assert characters_in(pb.WhatIfRequest(text=text, intervention=replaced)) == len(text) + sum(map(len, texts))
    assert characters_in(pb.TranslateStreamRequest(text=text)) == len(text)
    assert characters_in(pb.ListModelsRequest()) == 0


@given(st.text())
def test_a_request_id_that_could_do_harm_in_a_log_is_replaced(given_id: str) -> None:
    accepted = accepted_request_id(given_id)
    assert accepted.isascii() and 0 < len(accepted) <= 64 and not set(accepted) & set(" \n\r\t\"'{}")
    assert accepted_request_id(accepted) == accepted


def test_who_sends_how_many_messages_is_read_from_the_proto() -> None:
    async def behavior(*_: object) -> pb.ListModelsResponse:
        return pb.ListModelsResponse()

    async def stream(*_: object):  # type: ignore[no-untyped-def]
        yield pb.ListModelsResponse()

    methods = methods_of({"Translate": behavior}, {"TranslateStream": stream, "StreamTokens": stream})
    assert {name: method.kind for name, method in methods.items()} == {
        "Translate": "unary",
        "TranslateStream": "bidi_stream",
        "StreamTokens": "server_stream",
    }
    assert methods["Translate"].labels("http") == (
        "unary",
        "interlinear.v1.TranslationService",
        "Translate",
        "http",
    )


def test_a_refusal_says_which_call_it_is_about() -> None:
    refusal = Refusal.of(Draining("another replica will answer"), "order-66")
    assert refusal.request_id == "order-66"
    assert any("RequestInfo" in detail.type_url for detail in refusal.status.details)
