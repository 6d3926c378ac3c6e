"""Protobuf to domain and back: pure functions, no gRPC.

Rows of every matrix are target, columns are source, as in the proto.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from typing import TypeVar

import numpy as np
from google.protobuf import empty_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from jaxtyping import Float

from bundle.decomposition import COMPONENTS, Decomposition
from bundle.manifest import Manifest, TablesInfo
from bundle.tokenizer import Span, TokenizedText
from service.errors import MessageInvalid, OptionOutOfRange, TextInvalid, UnknownEnumValue
from service.explainer import Explanation, ExplanationWarning
from service.pb import interlinear_pb2 as pb
from service.translator import Alignment, Timings, TranslatedHypothesis, Translation, TranslationOptions

Request = TypeVar("Request", bound=Message)

_OPTION_FIELDS = {  # proto name: domain name
    "beam_size": "beam_size",
    "num_hypotheses": "n_best",
    "length_penalty": "length_penalty",
    "max_target_tokens": "max_target_tokens",
    "forced_prefix": "forced_prefix",
}
_FINISH_REASONS = {"eos": pb.FINISH_REASON_END_OF_SENTENCE, "max_length": pb.FINISH_REASON_MAX_LENGTH}
_SIDES = {"": pb.SIDE_UNSPECIFIED, "source": pb.SIDE_SOURCE, "target": pb.SIDE_TARGET}
_LENGTH_DELIMITED = 2  # wire type of strings and messages


# ---------------------------------------------------------------------------------------------------- requests


def parse(request_type: type[Request], payload: bytes) -> Request:
    """Return the request that ``payload`` encodes.

    Raises:
        TextInvalid: A string is not valid UTF-8; the error names it.
        MessageInvalid: The bytes are no message of this type.
        UnknownEnumValue: An enum holds a number this version does not know.
    """
    name = request_type.DESCRIPTOR.full_name
    try:
        request: Request = request_type.FromString(payload)
    except DecodeError:
        try:
            field = next(_fields_not_utf8(payload, request_type.DESCRIPTOR), None)
        except DecodeError:
            field = None
        if field is None:
            raise MessageInvalid("", f"the bytes are not a message of type {name}") from None
        raise TextInvalid(field, f"{field} is not valid UTF-8; convert the text before sending it") from None
    for field, number, known in _unknown_enums(request):
        raise UnknownEnumValue(field, f"{field} is {number}; known values are {', '.join(known)}")
    return request


def read_options(options: pb.DecodingOptions, alignment: bool) -> TranslationOptions:
    """Return the options of a request; those that are absent take their defaults. Ranges are not checked here."""
    given = {domain: getattr(options, field) for field, domain in _OPTION_FIELDS.items() if options.HasField(field)}
    return TranslationOptions(**given, alignment=alignment)


def read_views(views: Collection[int]) -> frozenset[int]:
    """Return the views asked for: all of them when none is named.

    Raises:
        UnknownEnumValue: A view is unspecified.
    """
    known = {number: name for name, number in pb.ExplanationView.items() if number != pb.EXPLANATION_VIEW_UNSPECIFIED}
    if not known.keys() >= set(views):
        message = (
            f"views holds EXPLANATION_VIEW_UNSPECIFIED; choose from {', '.join(known.values())}, or leave it empty"
        )
        raise UnknownEnumValue("views", message)
    return frozenset(views or known)


def refuse_options(options: pb.DecodingOptions) -> None:
    """Accept only empty options: a target that the caller gives is scored, not searched.

    Raises:
        OptionOutOfRange: An option is set.
    """
    for field, _ in options.ListFields():
        message = f"{field.name} steers the search for a translation, and a given target is not searched; leave it out"
        raise OptionOutOfRange(f"options.{field.name}", message)


def smaller(request: Message) -> str:
    """Return what to change in ``request`` so that its reply gets smaller."""
    if isinstance(request, pb.ExplainRequest):
        views = read_views(request.views)
        for view in (pb.EXPLANATION_VIEW_TERMS, pb.EXPLANATION_VIEW_SCORES, pb.EXPLANATION_VIEW_ALIGNMENT):
            if view in views:
                return f"Leave {pb.ExplanationView.Name(view)} out of views, or explain a shorter text"
    if isinstance(request, pb.TranslateRequest) and request.alignment == pb.ALIGNMENT_DETAIL_PIECES:
        return "Ask for ALIGNMENT_DETAIL_WORDS instead of ALIGNMENT_DETAIL_PIECES, or send fewer texts"
    return "Send fewer or shorter texts"


def _fields_not_utf8(payload: bytes, descriptor: Descriptor, path: str = "") -> Iterator[str]:
    """Yield the paths of the strings in ``payload`` that are not UTF-8, in order.

    Raises:
        DecodeError: The bytes are no message at all.
    """
    seen: Counter[str] = Counter()
    for part in UnknownFieldSet(empty_pb2.Empty.FromString(payload)):
        field = descriptor.fields_by_number.get(part.field_number)
        if field is None or part.wire_type != _LENGTH_DELIMITED:
            continue
        name = f"{path}{field.name}[{seen[field.name]}]" if field.is_repeated else f"{path}{field.name}"
        seen[field.name] += 1
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from _fields_not_utf8(part.data, field.message_type, f"{name}.")
        elif field.type == FieldDescriptor.TYPE_STRING:
            try:
                part.data.decode()
            except UnicodeDecodeError:
                yield name


def _unknown_enums(message: Message, path: str = "") -> Iterator[tuple[str, int, list[str]]]:
    """Yield path, number and known names of every enum field that holds a number its enum does not have."""
    for field, value in message.ListFields():
        values = list(value) if field.is_repeated else [value]
        for index, item in enumerate(values):
            name = f"{path}{field.name}[{index}]" if field.is_repeated else f"{path}{field.name}"
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                yield from _unknown_enums(item, f"{name}.")
            elif field.type == FieldDescriptor.TYPE_ENUM and item not in field.enum_type.values_by_number:
                yield name, item, [value.name for value in field.enum_type.values]


# ------------------------------------------------------------------------------------------------------ replies


def write_matrix(values: Float[np.ndarray, "rows columns"], encoding: int) -> pb.Matrix:
    """Return ``values`` as float32, packed unless ``encoding`` asks for a list."""
    rows, columns = values.shape
    if encoding == pb.MATRIX_ENCODING_FLOAT_LIST:
        return pb.Matrix(rows=rows, columns=columns, values=values.astype(np.float32).ravel().tolist())
    return pb.Matrix(rows=rows, columns=columns, packed_float32=values.astype("<f4").tobytes())


def write_options(options: TranslationOptions, manifest: Manifest) -> pb.DecodingOptions:
    """Return the options as applied, every field set."""
    written = {field: getattr(options, domain) for field, domain in _OPTION_FIELDS.items()}
    if options.max_target_tokens is None:
        written["max_target_tokens"] = manifest.limits.max_target_tokens
    return pb.DecodingOptions(**written)


def write_translation(translation: Translation, detail: int, encoding: int) -> pb.Translation:
    """Return a translation with as much of its alignment as ``detail`` (an AlignmentDetail) asks for."""
    pieces = detail == pb.ALIGNMENT_DETAIL_PIECES
    hypotheses = [_hypothesis(hypothesis) for hypothesis in translation.hypotheses]
    message = pb.Translation(
        hypotheses=hypotheses, timings=_timings(translation.timings), batch_size=translation.batch_size
    )
    if detail == pb.ALIGNMENT_DETAIL_UNSPECIFIED:
        return message
    message.source.CopyFrom(_tokenized(translation.source))
    for written, hypothesis in zip(message.hypotheses, translation.hypotheses, strict=True):
        written.target.CopyFrom(_tokenized(hypothesis.target))
        if hypothesis.alignment is not None:
            written.alignment.CopyFrom(_alignment(hypothesis.alignment, pieces, encoding))
    return message


def write_explanation(explanation: Explanation, views: Collection[int], encoding: int) -> pb.ExplainResponse:
    """Return an explanation, cut down to ``views`` (numbers of ExplanationView)."""
    translation = explanation.translation
    hypothesis = _hypothesis(translation.hypotheses[0])
    hypothesis.target.CopyFrom(_tokenized(translation.hypotheses[0].target))
    if pb.EXPLANATION_VIEW_ALIGNMENT in views:
        hypothesis.alignment.CopyFrom(_alignment(explanation.alignment, True, encoding))
    message = pb.ExplainResponse(
        source=_tokenized(translation.source),
        hypothesis=hypothesis,
        forced=explanation.forced,
        decomposition=_decomposition(explanation.decomposition, explanation.tables, views, encoding),
        warnings=[_warning(warning) for warning in explanation.warnings],
        timings=_timings(translation.timings),
        batch_size=translation.batch_size,
    )
    if pb.EXPLANATION_VIEW_SCORES in views:
        message.attention_scores.CopyFrom(write_matrix(explanation.attention_scores, encoding))
        message.attention_weights.CopyFrom(write_matrix(explanation.attention_weights, encoding))
    return message


def write_tables(tables: TablesInfo) -> pb.ComponentTables:
    """Return where component tables come from."""
    return pb.ComponentTables(
        id=tables.id,
        digest=tables.digest,
        corpus=tables.corpus,
        sentences=tables.sentences,
        minimum_count=tables.minimum_count,
    )


def write_model(manifest: Manifest, digest: str, device: str) -> pb.Model:
    """Return what a manifest tells, but for card and files; ``digest`` is the manifest's own."""
    return pb.Model(
        name=manifest.bundle_id,
        version=manifest.version,
        digest=digest,
        is_default=True,  # one bundle is loaded
        source_language_code=manifest.source_language,
        target_language_code=manifest.target_language,
        architecture=manifest.architecture,
        sizes=manifest.sizes,
        score_kind=manifest.score_kind,
        precision=manifest.precision,
        device=device,
        max_source_tokens=manifest.limits.max_source_tokens,
        max_target_tokens=manifest.limits.max_target_tokens,
        quality=[
            pb.QualityFigure(
                test_set=test_set, metric=metric, value=figure["value"], signature=figure.get("signature", "")
            )
            for test_set, figures in manifest.quality.items()
            for metric, figure in figures.items()
        ],
        training_data=str(manifest.training["data"]),
        license=str(manifest.training["licence"]),
        credit=str(manifest.training["credit"]),
        tables=None if manifest.tables is None else write_tables(manifest.tables),
    )


def _hypothesis(hypothesis: TranslatedHypothesis) -> pb.Hypothesis:
    return pb.Hypothesis(
        text=hypothesis.text,
        log_probability=hypothesis.log_probability,
        normalized_score=hypothesis.normalized_score,
        token_log_probabilities=hypothesis.token_log_probabilities,
        finish_reason=_FINISH_REASONS[hypothesis.finish_reason],
    )


def _timings(timings: Timings) -> pb.Timings:
    return pb.Timings(
        queue_seconds=timings.queue,
        tokenize_seconds=timings.tokenize,
        encode_seconds=timings.encode,
        decode_seconds=timings.decode,
        explain_seconds=timings.explain,
        detokenize_seconds=timings.detokenize,
    )


def _tokenized(tokenized: TokenizedText) -> pb.TokenizedText:
    pieces = [
        pb.Piece(
            token_id=piece.token_id,
            piece=piece.piece,
            text=piece.text,
            span=_span(piece.span),
            word_index=piece.word_index,
            zero_width=piece.zero_width,
        )
        for piece in tokenized.pieces
    ]
    words = [
        pb.Word(text=word.text, span=_span(word.span), piece_indices=word.piece_indices) for word in tokenized.words
    ]
    return pb.TokenizedText(text=tokenized.text, pieces=pieces, words=words)


def _span(span: Span) -> pb.Span:
    return pb.Span(
        start_byte=span.start_byte,
        end_byte=span.end_byte,
        start_code_point=span.start_code_point,
        end_code_point=span.end_code_point,
        start_utf16=span.start_utf16,
        end_utf16=span.end_utf16,
    )


def _alignment(alignment: Alignment, pieces: bool, encoding: int) -> pb.Alignment:
    return pb.Alignment(
        word_weights=write_matrix(alignment.word_matrix, encoding),
        piece_weights=write_matrix(alignment.piece_weights, encoding) if pieces else None,
        links=[
            pb.AlignmentLink(target_index=target, source_index=source, weight=weight)
            for target, source, weight in alignment.links
        ],
        shift=alignment.shift,
    )


def _decomposition(
    decomposition: Decomposition, tables: TablesInfo, views: Collection[int], encoding: int
) -> pb.Decomposition:
    terms = []
    for encoder, encoder_name in enumerate(COMPONENTS):
        for decoder, decoder_name in enumerate(COMPONENTS):
            term = pb.Term(encoder=f"COMPONENT_{encoder_name.upper()}", decoder=f"COMPONENT_{decoder_name.upper()}")
            if pb.EXPLANATION_VIEW_TERMS in views:
                term.contribution.CopyFrom(write_matrix(decomposition.terms[encoder, decoder], encoding))
            if pb.EXPLANATION_VIEW_SHARES in views:
                term.share = float(decomposition.shares[encoder, decoder])
                term.row_shares.extend(decomposition.row_shares[encoder, decoder].tolist())
            terms.append(term)
    distances = decomposition.subset_distances if pb.EXPLANATION_VIEW_SHARES in views else {}
    return pb.Decomposition(
        tables=write_tables(tables),
        terms=terms,
        reconstruction_error=decomposition.reconstruction_error,
        subset_distances=[
            pb.SubsetDistance(subset=subset, total_variation=distance) for subset, distance in distances.items()
        ],
    )


def _warning(warning: ExplanationWarning) -> pb.Warning:
    return pb.Warning(
        kind=f"WARNING_KIND_{warning.kind.name}",
        message=warning.message,
        side=_SIDES[warning.side],
        positions=warning.positions,
    )
