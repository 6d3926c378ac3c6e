"""Our types to protobuf: translations, their alignment, and models.

Rows of every matrix are target, columns are source, as in the proto. Large parts are filled in where they stand in the
reply: protobuf copies, byte by byte, a message that is made apart and then put into another.
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


def fill_matrix(message: pb.Matrix, values: Float[np.ndarray, "rows columns"], encoding: int) -> None:
    """Write ``values`` as float32, packed unless ``encoding`` asks for a list."""
    message.rows, message.columns = values.shape
    if encoding == pb.MATRIX_ENCODING_FLOAT_LIST:
        message.values.extend(values.astype(np.float32).ravel().tolist())
    else:
        message.packed_float32 = values.astype("<f4").tobytes()


def write_options(options: TranslationOptions, manifest: Manifest) -> pb.DecodingOptions:
    """Return the options as applied, every field set."""
    written = {field: getattr(options, domain) for field, domain in OPTION_FIELDS.items()}
    if options.max_target_tokens is None:
        written["max_target_tokens"] = manifest.limits.max_target_tokens
    return pb.DecodingOptions(**written)


def write_translation(translation: Translation, detail: int, encoding: int) -> pb.Translation:
    """Return a translation with as much of its alignment as ``detail`` (an AlignmentDetail) asks for."""
    message = pb.Translation(
        timings=write_timings(translation.timings),
        batch_size=translation.batch_size,
        suspicions=write_suspicions(translation.suspicions),
        retried=translation.retried,
    )
    aligned, pieces = detail != pb.ALIGNMENT_DETAIL_UNSPECIFIED, detail == pb.ALIGNMENT_DETAIL_PIECES
    if aligned:
        fill_tokenized(message.source, translation.source)
    for hypothesis in translation.hypotheses:
        if aligned:
            fill_aligned(message.hypotheses.add(), hypothesis, pieces, encoding)
        else:
            fill_plain(message.hypotheses.add(), hypothesis)
    return message


def write_sentence(sentence: Sentence, answer: pb.Translation | ServiceError) -> pb.TranslateStreamResponse:
    """Return a sentence of a document with what became of it."""
    response = pb.TranslateStreamResponse()
    message = response.sentence
    message.sequence_id, message.paragraph, message.before = sentence.sequence_id, sentence.paragraph, sentence.before
    _fill_span(message.span, sentence.span)
    if isinstance(answer, ServiceError):
        message.error.CopyFrom(status_of(answer))
    else:
        message.translation.CopyFrom(answer)
    return response


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


def fill_plain(message: pb.Hypothesis, hypothesis: TranslatedHypothesis) -> None:
    """Write a hypothesis without words and alignment."""
    message.text = hypothesis.text
    message.log_probability = hypothesis.log_probability
    message.normalized_score = hypothesis.normalized_score
    message.token_log_probabilities.extend(hypothesis.token_log_probabilities)
    message.finish_reason = _FINISH_REASONS[hypothesis.finish_reason]


def fill_worded(message: pb.Hypothesis, hypothesis: TranslatedHypothesis) -> None:
    """Write a hypothesis with its words, and without alignment."""
    fill_plain(message, hypothesis)
    fill_tokenized(message.target, hypothesis.target)
    message.word_log_probabilities.extend(hypothesis.word_log_probabilities)


def fill_aligned(message: pb.Hypothesis, hypothesis: TranslatedHypothesis, pieces: bool, encoding: int) -> None:
    """Write a hypothesis with its words and its alignment, between pieces too if ``pieces``."""
    fill_worded(message, hypothesis)
    if hypothesis.alignment is not None:
        _fill_alignment(message.alignment, hypothesis.alignment, pieces, encoding)


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


def fill_tokenized(message: pb.TokenizedText, tokenized: TokenizedText) -> None:
    """Write a text in pieces and words."""
    message.text = tokenized.text
    add_piece, add_word = message.pieces.add, message.words.add
    for piece in tokenized.pieces:
        added = add_piece(
            token_id=piece.token_id,
            piece=piece.piece,
            text=piece.text,
            word_index=piece.word_index,
            zero_width=piece.zero_width,
        )
        _fill_span(added.span, piece.span)
    for word in tokenized.words:
        _fill_span(add_word(text=word.text, piece_indices=word.piece_indices).span, word.span)


def _fill_span(message: pb.Span, span: Span) -> None:
    """Write where a stretch of a text stands."""
    (
        message.start_byte,
        message.end_byte,
        message.start_code_point,
        message.end_code_point,
        message.start_utf16,
        message.end_utf16,
    ) = span


def _fill_alignment(message: pb.Alignment, alignment: Alignment, pieces: bool, encoding: int) -> None:
    message.shift = alignment.shift
    message.method = _METHOD_NUMBERS[alignment.method]
    message.evidence = _EVIDENCE_NUMBERS[alignment.evidence]
    message.unaligned_target_words.extend(alignment.unaligned_target)
    message.unaligned_source_words.extend(alignment.unaligned_source)
    add_link = message.links.add
    for target, source, weight in alignment.links:
        add_link(target_index=target, source_index=source, weight=weight)
    fill_matrix(message.word_weights, alignment.word_matrix, encoding)
    for matrix, values, wanted in (
        (message.piece_weights, alignment.piece_weights, pieces),
        (message.reverse_word_weights, alignment.reverse_word_matrix, True),
        (message.posterior_word_weights, alignment.posterior_word_matrix, True),
        (message.posterior_piece_weights, alignment.posterior_piece_weights, pieces),
    ):
        if values is not None and wanted:
            fill_matrix(matrix, values, encoding)
