"""``interlinear what-if``, ``contrast`` and ``alternatives``: what a reviewer asks of a translation, in a terminal."""

from typing import Annotated

import typer
from google.protobuf import json_format, message
from rich.console import Console

from service.client import DEFAULT_TIMEOUT_SECONDS
from service.commands.command_line import (
    DEFAULT_ADDRESS,
    Address,
    BeamSize,
    Connection,
    Json,
    Model,
    Timeout,
    Wait,
    argument_text,
    ask,
    print_line,
)
from service.commands.terminal import COMPONENT_NAMES
from service.commands.terminal_changes import alternatives_view, contrast_view, what_if_view
from service.pb import interlinear_pb2 as pb

_NAMES = {pb.Component.Name(number).removeprefix("COMPONENT_").lower(): number for number in COMPONENT_NAMES}
_TERMS = {f"{encoder}_{decoder}": (encoder, decoder) for encoder in _NAMES for decoder in _NAMES}
_KEPT = {
    **{name: [f"{name}_{name}"] for name in ("temporal", "input_driven")},
    **{f"no_{name}": [term for term, sides in _TERMS.items() if name not in sides] for name in _NAMES},
    **{term: [term] for term in _TERMS},
}
_KEEP_HELP = (
    "Terms attention is made of; the others are left out. temporal or input_driven (that alone), no_temporal, "
    "no_input_driven, no_delta, or a term like temporal_delta (encoder_decoder). Repeat it to keep more."
)

Text = Annotated[str, typer.Argument(metavar="TEXT", help="The source, one sentence.")]
Target = Annotated[str | None, typer.Option("--target", help="A translation to look into instead of ours.")]
Word = Annotated[int, typer.Option("--word", min=0, help="Which word of the translation, from 0.")]


def what_if(
    text: Text,
    mask: Annotated[list[int] | None, typer.Option(min=0, help="Hide source word N, from 0; repeatable.")] = None,
    replace: Annotated[
        list[str] | None, typer.Option(metavar="N=WORD", help="Write WORD for source word N; repeatable.")
    ] = None,
    keep: Annotated[list[str] | None, typer.Option(metavar="TERMS", help=_KEEP_HELP)] = None,
    attend: Annotated[
        list[str] | None, typer.Option(metavar="M=N", help="Give token M all its attention to word N; repeatable.")
    ] = None,
    flatten: Annotated[bool, typer.Option("--flatten", help="Give every token the same attention everywhere.")] = False,
    json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    model: Model = "",
    beam_size: BeamSize = None,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    wait: Wait = False,
) -> None:
    """Translate again with attention or the source changed: which words change, and how much less likely they get."""
    given = [pb.GivenAttention(flat=True)] if flatten else []
    for each in attend or ():
        token, word = _numbered(each, "--attend")
        given.append(pb.GivenAttention(target_token=token, source_word=_number(word, "--attend", each)))
    request = pb.WhatIfRequest(
        text=argument_text(text, "TEXT"),
        model=model,
        options=pb.DecodingOptions(beam_size=beam_size),
        intervention=pb.Intervention(
            kept_terms=[_term_key(term) for term in _terms(keep or [])],
            masked_source_words=mask,
            replaced_source_words=[
                pb.WordReplacement(source_word=word, text=argument_text(text, "--replace"))
                for word, text in (_numbered(each, "--replace") for each in replace or ())
            ],
            given_attention=given,
        ),
        matrix_encoding=pb.MATRIX_ENCODING_FLOAT_LIST if json else pb.MATRIX_ENCODING_UNSPECIFIED,
    )
    response = ask(Connection(address, timeout, wait), lambda client: client.what_if(request))
    if not _printed(response, json):
        Console().print(what_if_view(response))


def contrast(
    text: Text,
    word: Word,
    alternative: Annotated[str, typer.Option("--alternative", help="What might stand there instead.")],
    target: Target = None,
    json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    model: Model = "",
    beam_size: BeamSize = None,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    wait: Wait = False,
) -> None:
    """Compare a word of a translation with another: log-probabilities, attention, and what it is made of."""
    request = pb.ContrastRequest(
        text=argument_text(text, "TEXT"),
        target=None if target is None else argument_text(target, "--target"),
        model=model,
        options=pb.DecodingOptions(beam_size=beam_size),
        target_word=word,
        alternative=argument_text(alternative, "--alternative"),
    )
    response = ask(Connection(address, timeout, wait), lambda client: client.contrast(request))
    if not _printed(response, json):
        Console().print(contrast_view(response))


def alternatives(
    text: Text,
    word: Word,
    target: Target = None,
    limit: Annotated[int | None, typer.Option("--limit", help="How many, 1 to 16; 5 when left out.")] = None,
    json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    model: Model = "",
    beam_size: BeamSize = None,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    wait: Wait = False,
) -> None:
    """List what else might stand at a place of a translation, and how the sentence would go on."""
    request = pb.ListAlternativesRequest(
        text=argument_text(text, "TEXT"),
        target=None if target is None else argument_text(target, "--target"),
        model=model,
        options=pb.DecodingOptions(beam_size=beam_size),
        target_word=word,
        limit=limit,
    )
    response = ask(Connection(address, timeout, wait), lambda client: client.list_alternatives(request))
    if not _printed(response, json):
        Console().print(alternatives_view(response, word))


def _printed(response: message.Message, json: bool) -> bool:
    if json:
        print_line(json_format.MessageToJson(response, ensure_ascii=False))
    return json


def _terms(keep: list[str]) -> list[str]:
    """Return the terms that the values of ``--keep`` stand for, each once, in the order of the wire."""
    for name in keep:
        if name not in _KEPT:
            raise typer.BadParameter(f"--keep {name} is none of {', '.join(_KEPT)}")
    wanted = {term for name in keep for term in _KEPT[name]}
    return [term for term in _TERMS if term in wanted]


def _term_key(term: str) -> pb.TermKey:
    encoder, decoder = _TERMS[term]
    return pb.TermKey(encoder=_NAMES[encoder], decoder=_NAMES[decoder])


def _numbered(pair: str, option: str) -> tuple[int, str]:
    """Return the two sides of ``N=VALUE``."""
    number, equals, value = pair.partition("=")
    if not equals:
        raise typer.BadParameter(f"{option} {pair} must be a number, '=' and a value, like {option} 2=3")
    return _number(number, option, pair), value


def _number(number: str, option: str, pair: str) -> int:
    if not number.isdecimal():
        raise typer.BadParameter(f"{option} {pair}: {number!r} is no number of a word; words are counted from 0")
    return int(number)
