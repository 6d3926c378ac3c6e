"""Our types to protobuf: translations, their alignment, and models; pure functions.

Rows of every matrix are target, columns are source, as in the proto.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from bundle.manifest import Manifest, TablesInfo
from bundle.tokenizer import Span, TokenizedText
from service.errors import ServiceError
from service.guard import Suspicion
from service.models.registry import Standing
from service.models.served_model import ServedModel
from service.pb import interlinear_pb2 as pb
from service.requests import ALIGNMENT_EVIDENCE, ALIGNMENT_METHODS, OPTION_FIELDS
from service.segmentation import Sentence
from service.status import status_of
from service.translation import Alignment, Timings, TranslatedHypothesis, Translation, TranslationOptions

_FINISH_REASONS = {"eos": pb.FINISH_REASON_END_OF_SENTENCE, "max_length": pb.FINISH_REASON_MAX_LENGTH}
_METHOD_NUMBERS = {name: number for number, name in ALIGNMENT_METHODS.items()}
_EVIDENCE_NUMBERS = {name: number for number, name in ALIGNMENT_EVIDENCE.items()}


def write_matrix(values: Float[np.ndarray, "rows columns"], encoding: int) -> pb.Matrix:
    """Return ``values`` as float32, packed unless ``encoding`` asks for a list."""
    rows, columns = values.shape
    if encoding == pb.MATRIX_ENCODING_FLOAT_LIST:
        return pb.Matrix(rows=rows, columns=columns, values=values.astype(np.float32).ravel().tolist())
    return pb.Matrix(rows=rows, columns=columns, packed_float32=values.astype("<f4").tobytes())


def write_options(options: TranslationOptions, manifest: Manifest) -> pb.DecodingOptions:
    """Return the options as applied, every field set."""
    written = {field: getattr(options, domain) for field, domain in OPTION_FIELDS.items()}
    if options.max_target_tokens is None:
        written["max_target_tokens"] = manifest.limits.max_target_tokens
    return pb.DecodingOptions(**written)


def write_translation(translation: Translation, detail: int, encoding: int) -> pb.Translation:
    """Return a translation with as much of its alignment as ``detail`` (an AlignmentDetail) asks for."""
    aligned = detail != pb.ALIGNMENT_DETAIL_UNSPECIFIED
    pieces = detail == pb.ALIGNMENT_DETAIL_PIECES
    return pb.Translation(
        hypotheses=[
            write_aligned(hypothesis, pieces, encoding) if aligned else write_plain(hypothesis)
            for hypothesis in translation.hypotheses
        ],
        source=write_tokenized(translation.source) if aligned else None,
        timings=write_timings(translation.timings),
        batch_size=translation.batch_size,
        suspicions=write_suspicions(translation.suspicions),
        retried=translation.retried,
    )


def write_sentence(sentence: Sentence, answer: pb.Translation | ServiceError) -> pb.TranslateStreamResponse:
    """Return a sentence of a document with what became of it."""
    return pb.TranslateStreamResponse(
        sentence=pb.DocumentSentence(
            sequence_id=sentence.sequence_id,
            paragraph=sentence.paragraph,
            span=write_span(sentence.span),
            before=sentence.before,
            translation=answer if isinstance(answer, pb.Translation) else None,
            error=status_of(answer) if isinstance(answer, ServiceError) else None,
        )
    )


def write_suspicions(suspicions: Sequence[Suspicion]) -> list[pb.Suspicion]:
    """Return what speaks against a translation."""
    return [
        pb.Suspicion(
            reason=f"SUSPICION_REASON_{suspicion.reason.upper()}",
            value=suspicion.value,
            threshold=suspicion.threshold,
            message=suspicion.message,
        )
        for suspicion in suspicions
    ]


def write_plain(hypothesis: TranslatedHypothesis) -> pb.Hypothesis:
    """Return a hypothesis without words and alignment."""
    return pb.Hypothesis(
        text=hypothesis.text,
        log_probability=hypothesis.log_probability,
        normalized_score=hypothesis.normalized_score,
        token_log_probabilities=hypothesis.token_log_probabilities,
        finish_reason=_FINISH_REASONS[hypothesis.finish_reason],
    )


def write_worded(hypothesis: TranslatedHypothesis) -> pb.Hypothesis:
    """Return a hypothesis with its words, and without alignment."""
    message = write_plain(hypothesis)
    message.target.CopyFrom(write_tokenized(hypothesis.target))
    message.word_log_probabilities.extend(hypothesis.word_log_probabilities)
    return message


def write_aligned(hypothesis: TranslatedHypothesis, pieces: bool, encoding: int) -> pb.Hypothesis:
    """Return a hypothesis with its words and its alignment, between pieces too if ``pieces``."""
    message = write_worded(hypothesis)
    if hypothesis.alignment is not None:
        message.alignment.CopyFrom(_alignment(hypothesis.alignment, pieces, encoding))
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


def write_metadata(model: ServedModel) -> pb.ResponseMetadata:
    """Return what a reply says of the model that answered."""
    return pb.ResponseMetadata(
        model=model.manifest.bundle_id,
        model_version=model.manifest.version,
        model_digest=model.digest,
        device=model.device,
    )


def write_listed_model(model: ServedModel, standing: Standing) -> pb.Model:
    """Return what is told of a model but for its card and files."""
    manifest = model.manifest
    return pb.Model(
        name=manifest.bundle_id,
        version=manifest.version,
        digest=model.digest,
        is_default=standing.default,
        is_active=standing.active,
        source_language_code=manifest.source_language,
        target_language_code=manifest.target_language,
        architecture=manifest.architecture,
        sizes=manifest.sizes,
        score_kind=manifest.score_kind,
        precision=manifest.precision,
        device=model.device,
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


def write_model(model: ServedModel, standing: Standing) -> pb.Model:
    """Return everything that is told of a model."""
    message = write_listed_model(model, standing)
    message.card = model.card
    for name, file in sorted(model.manifest.files.items()):
        message.files.add(name=name, sha256=file.sha256, size_bytes=file.size_bytes)
    return message


def write_timings(timings: Timings) -> pb.Timings:
    """Return where the time went."""
    return pb.Timings(
        queue_seconds=timings.queue,
        tokenize_seconds=timings.tokenize,
        encode_seconds=timings.encode,
        decode_seconds=timings.decode,
        explain_seconds=timings.explain,
        detokenize_seconds=timings.detokenize,
    )


def write_tokenized(tokenized: TokenizedText) -> pb.TokenizedText:
    """Return a text in pieces and words."""
    pieces = [
        pb.Piece(
            token_id=piece.token_id,
            piece=piece.piece,
            text=piece.text,
            span=write_span(piece.span),
            word_index=piece.word_index,
            zero_width=piece.zero_width,
        )
        for piece in tokenized.pieces
    ]
    words = [
        pb.Word(text=word.text, span=write_span(word.span), piece_indices=word.piece_indices)
        for word in tokenized.words
    ]
    return pb.TokenizedText(text=tokenized.text, pieces=pieces, words=words)


def write_span(span: Span) -> pb.Span:
    """Return where a stretch of a text stands."""
    return pb.Span(
        start_byte=span.start_byte,
        end_byte=span.end_byte,
        start_code_point=span.start_code_point,
        end_code_point=span.end_code_point,
        start_utf16=span.start_utf16,
        end_utf16=span.end_utf16,
    )


def _alignment(alignment: Alignment, pieces: bool, encoding: int) -> pb.Alignment:
    reverse, posterior = alignment.reverse_word_matrix, alignment.posterior_word_matrix
    fine = alignment.posterior_piece_weights
    return pb.Alignment(
        word_weights=write_matrix(alignment.word_matrix, encoding),
        piece_weights=write_matrix(alignment.piece_weights, encoding) if pieces else None,
        links=[
            pb.AlignmentLink(target_index=target, source_index=source, weight=weight)
            for target, source, weight in alignment.links
        ],
        shift=alignment.shift,
        method=_METHOD_NUMBERS[alignment.method],
        unaligned_target_words=alignment.unaligned_target,
        unaligned_source_words=alignment.unaligned_source,
        reverse_word_weights=None if reverse is None else write_matrix(reverse, encoding),
        evidence=_EVIDENCE_NUMBERS[alignment.evidence],
        posterior_word_weights=None if posterior is None else write_matrix(posterior, encoding),
        posterior_piece_weights=None if fine is None or not pieces else write_matrix(fine, encoding),
    )
