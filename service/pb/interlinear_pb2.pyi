from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TranslationGuard(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRANSLATION_GUARD_UNSPECIFIED: _ClassVar[TranslationGuard]
    TRANSLATION_GUARD_REPORT: _ClassVar[TranslationGuard]
    TRANSLATION_GUARD_RETRY: _ClassVar[TranslationGuard]

class AlignmentEvidence(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALIGNMENT_EVIDENCE_UNSPECIFIED: _ClassVar[AlignmentEvidence]
    ALIGNMENT_EVIDENCE_ATTENTION: _ClassVar[AlignmentEvidence]
    ALIGNMENT_EVIDENCE_POSTERIOR: _ClassVar[AlignmentEvidence]

class AlignmentMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALIGNMENT_METHOD_UNSPECIFIED: _ClassVar[AlignmentMethod]
    ALIGNMENT_METHOD_ARGMAX: _ClassVar[AlignmentMethod]
    ALIGNMENT_METHOD_THRESHOLD: _ClassVar[AlignmentMethod]
    ALIGNMENT_METHOD_INTERSECTION: _ClassVar[AlignmentMethod]
    ALIGNMENT_METHOD_UNION: _ClassVar[AlignmentMethod]
    ALIGNMENT_METHOD_GROW_DIAG: _ClassVar[AlignmentMethod]
    ALIGNMENT_METHOD_GROW_DIAG_FINAL_AND: _ClassVar[AlignmentMethod]

class AlignmentDetail(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALIGNMENT_DETAIL_UNSPECIFIED: _ClassVar[AlignmentDetail]
    ALIGNMENT_DETAIL_WORDS: _ClassVar[AlignmentDetail]
    ALIGNMENT_DETAIL_PIECES: _ClassVar[AlignmentDetail]

class MatrixEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MATRIX_ENCODING_UNSPECIFIED: _ClassVar[MatrixEncoding]
    MATRIX_ENCODING_PACKED_FLOAT32: _ClassVar[MatrixEncoding]
    MATRIX_ENCODING_FLOAT_LIST: _ClassVar[MatrixEncoding]

class ExplanationView(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPLANATION_VIEW_UNSPECIFIED: _ClassVar[ExplanationView]
    EXPLANATION_VIEW_ALIGNMENT: _ClassVar[ExplanationView]
    EXPLANATION_VIEW_SCORES: _ClassVar[ExplanationView]
    EXPLANATION_VIEW_TERMS: _ClassVar[ExplanationView]
    EXPLANATION_VIEW_SHARES: _ClassVar[ExplanationView]
    EXPLANATION_VIEW_COMPONENTS: _ClassVar[ExplanationView]
    EXPLANATION_VIEW_STATES: _ClassVar[ExplanationView]

class SuspicionReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUSPICION_REASON_UNSPECIFIED: _ClassVar[SuspicionReason]
    SUSPICION_REASON_REPETITION: _ClassVar[SuspicionReason]
    SUSPICION_REASON_UNCOVERED_SOURCE: _ClassVar[SuspicionReason]
    SUSPICION_REASON_DIFFUSE_ATTENTION: _ClassVar[SuspicionReason]
    SUSPICION_REASON_LENGTH: _ClassVar[SuspicionReason]
    SUSPICION_REASON_LOW_PROBABILITY: _ClassVar[SuspicionReason]
    SUSPICION_REASON_UNKNOWN_SOURCE: _ClassVar[SuspicionReason]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_END_OF_SENTENCE: _ClassVar[FinishReason]
    FINISH_REASON_MAX_LENGTH: _ClassVar[FinishReason]

class Component(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPONENT_UNSPECIFIED: _ClassVar[Component]
    COMPONENT_TEMPORAL: _ClassVar[Component]
    COMPONENT_INPUT_DRIVEN: _ClassVar[Component]
    COMPONENT_DELTA: _ClassVar[Component]

class WarningKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WARNING_KIND_UNSPECIFIED: _ClassVar[WarningKind]
    WARNING_KIND_UNSEEN_TOKEN: _ClassVar[WarningKind]
    WARNING_KIND_POSITION_BEYOND_TABLES: _ClassVar[WarningKind]
    WARNING_KIND_RECONSTRUCTION_ERROR_HIGH: _ClassVar[WarningKind]
    WARNING_KIND_UNKNOWN_TOKEN: _ClassVar[WarningKind]
    WARNING_KIND_TARGET_CUT: _ClassVar[WarningKind]
    WARNING_KIND_CONSTANT_SCORES: _ClassVar[WarningKind]

class Side(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SIDE_UNSPECIFIED: _ClassVar[Side]
    SIDE_SOURCE: _ClassVar[Side]
    SIDE_TARGET: _ClassVar[Side]
TRANSLATION_GUARD_UNSPECIFIED: TranslationGuard
TRANSLATION_GUARD_REPORT: TranslationGuard
TRANSLATION_GUARD_RETRY: TranslationGuard
ALIGNMENT_EVIDENCE_UNSPECIFIED: AlignmentEvidence
ALIGNMENT_EVIDENCE_ATTENTION: AlignmentEvidence
ALIGNMENT_EVIDENCE_POSTERIOR: AlignmentEvidence
ALIGNMENT_METHOD_UNSPECIFIED: AlignmentMethod
ALIGNMENT_METHOD_ARGMAX: AlignmentMethod
ALIGNMENT_METHOD_THRESHOLD: AlignmentMethod
ALIGNMENT_METHOD_INTERSECTION: AlignmentMethod
ALIGNMENT_METHOD_UNION: AlignmentMethod
ALIGNMENT_METHOD_GROW_DIAG: AlignmentMethod
ALIGNMENT_METHOD_GROW_DIAG_FINAL_AND: AlignmentMethod
ALIGNMENT_DETAIL_UNSPECIFIED: AlignmentDetail
ALIGNMENT_DETAIL_WORDS: AlignmentDetail
ALIGNMENT_DETAIL_PIECES: AlignmentDetail
MATRIX_ENCODING_UNSPECIFIED: MatrixEncoding
MATRIX_ENCODING_PACKED_FLOAT32: MatrixEncoding
MATRIX_ENCODING_FLOAT_LIST: MatrixEncoding
EXPLANATION_VIEW_UNSPECIFIED: ExplanationView
EXPLANATION_VIEW_ALIGNMENT: ExplanationView
EXPLANATION_VIEW_SCORES: ExplanationView
EXPLANATION_VIEW_TERMS: ExplanationView
EXPLANATION_VIEW_SHARES: ExplanationView
EXPLANATION_VIEW_COMPONENTS: ExplanationView
EXPLANATION_VIEW_STATES: ExplanationView
SUSPICION_REASON_UNSPECIFIED: SuspicionReason
SUSPICION_REASON_REPETITION: SuspicionReason
SUSPICION_REASON_UNCOVERED_SOURCE: SuspicionReason
SUSPICION_REASON_DIFFUSE_ATTENTION: SuspicionReason
SUSPICION_REASON_LENGTH: SuspicionReason
SUSPICION_REASON_LOW_PROBABILITY: SuspicionReason
SUSPICION_REASON_UNKNOWN_SOURCE: SuspicionReason
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_END_OF_SENTENCE: FinishReason
FINISH_REASON_MAX_LENGTH: FinishReason
COMPONENT_UNSPECIFIED: Component
COMPONENT_TEMPORAL: Component
COMPONENT_INPUT_DRIVEN: Component
COMPONENT_DELTA: Component
WARNING_KIND_UNSPECIFIED: WarningKind
WARNING_KIND_UNSEEN_TOKEN: WarningKind
WARNING_KIND_POSITION_BEYOND_TABLES: WarningKind
WARNING_KIND_RECONSTRUCTION_ERROR_HIGH: WarningKind
WARNING_KIND_UNKNOWN_TOKEN: WarningKind
WARNING_KIND_TARGET_CUT: WarningKind
WARNING_KIND_CONSTANT_SCORES: WarningKind
SIDE_UNSPECIFIED: Side
SIDE_SOURCE: Side
SIDE_TARGET: Side

class TranslateRequest(_message.Message):
    __slots__ = ("model", "source_language_code", "target_language_code", "texts", "options", "alignment", "matrix_encoding", "alignment_options", "guard")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_FIELD_NUMBER: _ClassVar[int]
    MATRIX_ENCODING_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    GUARD_FIELD_NUMBER: _ClassVar[int]
    model: str
    source_language_code: str
    target_language_code: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    options: DecodingOptions
    alignment: AlignmentDetail
    matrix_encoding: MatrixEncoding
    alignment_options: AlignmentOptions
    guard: TranslationGuard
    def __init__(self, model: _Optional[str] = ..., source_language_code: _Optional[str] = ..., target_language_code: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., options: _Optional[_Union[DecodingOptions, _Mapping]] = ..., alignment: _Optional[_Union[AlignmentDetail, str]] = ..., matrix_encoding: _Optional[_Union[MatrixEncoding, str]] = ..., alignment_options: _Optional[_Union[AlignmentOptions, _Mapping]] = ..., guard: _Optional[_Union[TranslationGuard, str]] = ...) -> None: ...

class TranslateStreamRequest(_message.Message):
    __slots__ = ("options", "text")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    options: DocumentOptions
    text: str
    def __init__(self, options: _Optional[_Union[DocumentOptions, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class DocumentOptions(_message.Message):
    __slots__ = ("model", "source_language_code", "target_language_code", "options", "alignment", "matrix_encoding", "alignment_options", "guard", "last_sequence_id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_FIELD_NUMBER: _ClassVar[int]
    MATRIX_ENCODING_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    GUARD_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    source_language_code: str
    target_language_code: str
    options: DecodingOptions
    alignment: AlignmentDetail
    matrix_encoding: MatrixEncoding
    alignment_options: AlignmentOptions
    guard: TranslationGuard
    last_sequence_id: int
    def __init__(self, model: _Optional[str] = ..., source_language_code: _Optional[str] = ..., target_language_code: _Optional[str] = ..., options: _Optional[_Union[DecodingOptions, _Mapping]] = ..., alignment: _Optional[_Union[AlignmentDetail, str]] = ..., matrix_encoding: _Optional[_Union[MatrixEncoding, str]] = ..., alignment_options: _Optional[_Union[AlignmentOptions, _Mapping]] = ..., guard: _Optional[_Union[TranslationGuard, str]] = ..., last_sequence_id: _Optional[int] = ...) -> None: ...

class StreamTokensRequest(_message.Message):
    __slots__ = ("model", "source_language_code", "target_language_code", "text", "options")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    source_language_code: str
    target_language_code: str
    text: str
    options: DecodingOptions
    def __init__(self, model: _Optional[str] = ..., source_language_code: _Optional[str] = ..., target_language_code: _Optional[str] = ..., text: _Optional[str] = ..., options: _Optional[_Union[DecodingOptions, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("model", "source_language_code", "target_language_code", "text", "target", "options", "views", "matrix_encoding", "alignment_options", "hypothesis_index")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    MATRIX_ENCODING_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    HYPOTHESIS_INDEX_FIELD_NUMBER: _ClassVar[int]
    model: str
    source_language_code: str
    target_language_code: str
    text: str
    target: str
    options: DecodingOptions
    views: _containers.RepeatedScalarFieldContainer[ExplanationView]
    matrix_encoding: MatrixEncoding
    alignment_options: AlignmentOptions
    hypothesis_index: int
    def __init__(self, model: _Optional[str] = ..., source_language_code: _Optional[str] = ..., target_language_code: _Optional[str] = ..., text: _Optional[str] = ..., target: _Optional[str] = ..., options: _Optional[_Union[DecodingOptions, _Mapping]] = ..., views: _Optional[_Iterable[_Union[ExplanationView, str]]] = ..., matrix_encoding: _Optional[_Union[MatrixEncoding, str]] = ..., alignment_options: _Optional[_Union[AlignmentOptions, _Mapping]] = ..., hypothesis_index: _Optional[int] = ...) -> None: ...

class ContrastRequest(_message.Message):
    __slots__ = ("model", "source_language_code", "target_language_code", "text", "target", "options", "target_word", "alternative", "matrix_encoding")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TARGET_WORD_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVE_FIELD_NUMBER: _ClassVar[int]
    MATRIX_ENCODING_FIELD_NUMBER: _ClassVar[int]
    model: str
    source_language_code: str
    target_language_code: str
    text: str
    target: str
    options: DecodingOptions
    target_word: int
    alternative: str
    matrix_encoding: MatrixEncoding
    def __init__(self, model: _Optional[str] = ..., source_language_code: _Optional[str] = ..., target_language_code: _Optional[str] = ..., text: _Optional[str] = ..., target: _Optional[str] = ..., options: _Optional[_Union[DecodingOptions, _Mapping]] = ..., target_word: _Optional[int] = ..., alternative: _Optional[str] = ..., matrix_encoding: _Optional[_Union[MatrixEncoding, str]] = ...) -> None: ...

class ListAlternativesRequest(_message.Message):
    __slots__ = ("model", "source_language_code", "target_language_code", "text", "target", "options", "target_word", "limit", "matrix_encoding")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TARGET_WORD_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MATRIX_ENCODING_FIELD_NUMBER: _ClassVar[int]
    model: str
    source_language_code: str
    target_language_code: str
    text: str
    target: str
    options: DecodingOptions
    target_word: int
    limit: int
    matrix_encoding: MatrixEncoding
    def __init__(self, model: _Optional[str] = ..., source_language_code: _Optional[str] = ..., target_language_code: _Optional[str] = ..., text: _Optional[str] = ..., target: _Optional[str] = ..., options: _Optional[_Union[DecodingOptions, _Mapping]] = ..., target_word: _Optional[int] = ..., limit: _Optional[int] = ..., matrix_encoding: _Optional[_Union[MatrixEncoding, str]] = ...) -> None: ...

class WhatIfRequest(_message.Message):
    __slots__ = ("model", "source_language_code", "target_language_code", "text", "options", "intervention", "matrix_encoding")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    INTERVENTION_FIELD_NUMBER: _ClassVar[int]
    MATRIX_ENCODING_FIELD_NUMBER: _ClassVar[int]
    model: str
    source_language_code: str
    target_language_code: str
    text: str
    options: DecodingOptions
    intervention: Intervention
    matrix_encoding: MatrixEncoding
    def __init__(self, model: _Optional[str] = ..., source_language_code: _Optional[str] = ..., target_language_code: _Optional[str] = ..., text: _Optional[str] = ..., options: _Optional[_Union[DecodingOptions, _Mapping]] = ..., intervention: _Optional[_Union[Intervention, _Mapping]] = ..., matrix_encoding: _Optional[_Union[MatrixEncoding, str]] = ...) -> None: ...

class Intervention(_message.Message):
    __slots__ = ("kept_terms", "masked_source_words", "replaced_source_words", "given_attention")
    KEPT_TERMS_FIELD_NUMBER: _ClassVar[int]
    MASKED_SOURCE_WORDS_FIELD_NUMBER: _ClassVar[int]
    REPLACED_SOURCE_WORDS_FIELD_NUMBER: _ClassVar[int]
    GIVEN_ATTENTION_FIELD_NUMBER: _ClassVar[int]
    kept_terms: _containers.RepeatedCompositeFieldContainer[TermKey]
    masked_source_words: _containers.RepeatedScalarFieldContainer[int]
    replaced_source_words: _containers.RepeatedCompositeFieldContainer[WordReplacement]
    given_attention: _containers.RepeatedCompositeFieldContainer[GivenAttention]
    def __init__(self, kept_terms: _Optional[_Iterable[_Union[TermKey, _Mapping]]] = ..., masked_source_words: _Optional[_Iterable[int]] = ..., replaced_source_words: _Optional[_Iterable[_Union[WordReplacement, _Mapping]]] = ..., given_attention: _Optional[_Iterable[_Union[GivenAttention, _Mapping]]] = ...) -> None: ...

class TermKey(_message.Message):
    __slots__ = ("encoder", "decoder")
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    encoder: Component
    decoder: Component
    def __init__(self, encoder: _Optional[_Union[Component, str]] = ..., decoder: _Optional[_Union[Component, str]] = ...) -> None: ...

class WordReplacement(_message.Message):
    __slots__ = ("source_word", "text")
    SOURCE_WORD_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    source_word: int
    text: str
    def __init__(self, source_word: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class GivenAttention(_message.Message):
    __slots__ = ("target_token", "flat", "source_word", "weights")
    TARGET_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FLAT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_WORD_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    target_token: int
    flat: bool
    source_word: int
    weights: SourceWeights
    def __init__(self, target_token: _Optional[int] = ..., flat: _Optional[bool] = ..., source_word: _Optional[int] = ..., weights: _Optional[_Union[SourceWeights, _Mapping]] = ...) -> None: ...

class SourceWeights(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class AlignmentOptions(_message.Message):
    __slots__ = ("method", "threshold", "evidence")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    method: AlignmentMethod
    threshold: float
    evidence: AlignmentEvidence
    def __init__(self, method: _Optional[_Union[AlignmentMethod, str]] = ..., threshold: _Optional[float] = ..., evidence: _Optional[_Union[AlignmentEvidence, str]] = ...) -> None: ...

class DecodingOptions(_message.Message):
    __slots__ = ("beam_size", "num_hypotheses", "length_penalty", "max_target_tokens", "forced_prefix", "no_repeat_ngram_size")
    BEAM_SIZE_FIELD_NUMBER: _ClassVar[int]
    NUM_HYPOTHESES_FIELD_NUMBER: _ClassVar[int]
    LENGTH_PENALTY_FIELD_NUMBER: _ClassVar[int]
    MAX_TARGET_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FORCED_PREFIX_FIELD_NUMBER: _ClassVar[int]
    NO_REPEAT_NGRAM_SIZE_FIELD_NUMBER: _ClassVar[int]
    beam_size: int
    num_hypotheses: int
    length_penalty: float
    max_target_tokens: int
    forced_prefix: str
    no_repeat_ngram_size: int
    def __init__(self, beam_size: _Optional[int] = ..., num_hypotheses: _Optional[int] = ..., length_penalty: _Optional[float] = ..., max_target_tokens: _Optional[int] = ..., forced_prefix: _Optional[str] = ..., no_repeat_ngram_size: _Optional[int] = ...) -> None: ...

class TranslateResponse(_message.Message):
    __slots__ = ("results", "effective_options", "metadata")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[TranslationResult]
    effective_options: DecodingOptions
    metadata: ResponseMetadata
    def __init__(self, results: _Optional[_Iterable[_Union[TranslationResult, _Mapping]]] = ..., effective_options: _Optional[_Union[DecodingOptions, _Mapping]] = ..., metadata: _Optional[_Union[ResponseMetadata, _Mapping]] = ...) -> None: ...

class TranslationResult(_message.Message):
    __slots__ = ("translation", "error")
    TRANSLATION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    translation: Translation
    error: _status_pb2.Status
    def __init__(self, translation: _Optional[_Union[Translation, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class TranslateStreamResponse(_message.Message):
    __slots__ = ("sentence", "end")
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    sentence: DocumentSentence
    end: DocumentEnd
    def __init__(self, sentence: _Optional[_Union[DocumentSentence, _Mapping]] = ..., end: _Optional[_Union[DocumentEnd, _Mapping]] = ...) -> None: ...

class DocumentSentence(_message.Message):
    __slots__ = ("sequence_id", "paragraph", "span", "before", "translation", "error")
    SEQUENCE_ID_FIELD_NUMBER: _ClassVar[int]
    PARAGRAPH_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    TRANSLATION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sequence_id: int
    paragraph: int
    span: Span
    before: str
    translation: Translation
    error: _status_pb2.Status
    def __init__(self, sequence_id: _Optional[int] = ..., paragraph: _Optional[int] = ..., span: _Optional[_Union[Span, _Mapping]] = ..., before: _Optional[str] = ..., translation: _Optional[_Union[Translation, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class DocumentEnd(_message.Message):
    __slots__ = ("after", "sentences", "failed", "effective_options", "metadata")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    after: str
    sentences: int
    failed: int
    effective_options: DecodingOptions
    metadata: ResponseMetadata
    def __init__(self, after: _Optional[str] = ..., sentences: _Optional[int] = ..., failed: _Optional[int] = ..., effective_options: _Optional[_Union[DecodingOptions, _Mapping]] = ..., metadata: _Optional[_Union[ResponseMetadata, _Mapping]] = ...) -> None: ...

class StreamTokensResponse(_message.Message):
    __slots__ = ("text", "translation", "effective_options", "metadata")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TRANSLATION_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    text: str
    translation: Translation
    effective_options: DecodingOptions
    metadata: ResponseMetadata
    def __init__(self, text: _Optional[str] = ..., translation: _Optional[_Union[Translation, _Mapping]] = ..., effective_options: _Optional[_Union[DecodingOptions, _Mapping]] = ..., metadata: _Optional[_Union[ResponseMetadata, _Mapping]] = ...) -> None: ...

class Translation(_message.Message):
    __slots__ = ("hypotheses", "source", "timings", "batch_size", "suspicions", "retried", "cached")
    HYPOTHESES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SUSPICIONS_FIELD_NUMBER: _ClassVar[int]
    RETRIED_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    hypotheses: _containers.RepeatedCompositeFieldContainer[Hypothesis]
    source: TokenizedText
    timings: Timings
    batch_size: int
    suspicions: _containers.RepeatedCompositeFieldContainer[Suspicion]
    retried: bool
    cached: bool
    def __init__(self, hypotheses: _Optional[_Iterable[_Union[Hypothesis, _Mapping]]] = ..., source: _Optional[_Union[TokenizedText, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., batch_size: _Optional[int] = ..., suspicions: _Optional[_Iterable[_Union[Suspicion, _Mapping]]] = ..., retried: _Optional[bool] = ..., cached: _Optional[bool] = ...) -> None: ...

class Suspicion(_message.Message):
    __slots__ = ("reason", "value", "threshold", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: SuspicionReason
    value: float
    threshold: float
    message: str
    def __init__(self, reason: _Optional[_Union[SuspicionReason, str]] = ..., value: _Optional[float] = ..., threshold: _Optional[float] = ..., message: _Optional[str] = ...) -> None: ...

class Hypothesis(_message.Message):
    __slots__ = ("text", "log_probability", "normalized_score", "token_log_probabilities", "finish_reason", "target", "alignment", "word_log_probabilities")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    NORMALIZED_SCORE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_LOG_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ALIGNMENT_FIELD_NUMBER: _ClassVar[int]
    WORD_LOG_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    text: str
    log_probability: float
    normalized_score: float
    token_log_probabilities: _containers.RepeatedScalarFieldContainer[float]
    finish_reason: FinishReason
    target: TokenizedText
    alignment: Alignment
    word_log_probabilities: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, text: _Optional[str] = ..., log_probability: _Optional[float] = ..., normalized_score: _Optional[float] = ..., token_log_probabilities: _Optional[_Iterable[float]] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., target: _Optional[_Union[TokenizedText, _Mapping]] = ..., alignment: _Optional[_Union[Alignment, _Mapping]] = ..., word_log_probabilities: _Optional[_Iterable[float]] = ...) -> None: ...

class TokenizedText(_message.Message):
    __slots__ = ("text", "pieces", "words")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    text: str
    pieces: _containers.RepeatedCompositeFieldContainer[Piece]
    words: _containers.RepeatedCompositeFieldContainer[Word]
    def __init__(self, text: _Optional[str] = ..., pieces: _Optional[_Iterable[_Union[Piece, _Mapping]]] = ..., words: _Optional[_Iterable[_Union[Word, _Mapping]]] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("token_id", "piece", "text", "span", "word_index", "zero_width")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    WORD_INDEX_FIELD_NUMBER: _ClassVar[int]
    ZERO_WIDTH_FIELD_NUMBER: _ClassVar[int]
    token_id: int
    piece: str
    text: str
    span: Span
    word_index: int
    zero_width: bool
    def __init__(self, token_id: _Optional[int] = ..., piece: _Optional[str] = ..., text: _Optional[str] = ..., span: _Optional[_Union[Span, _Mapping]] = ..., word_index: _Optional[int] = ..., zero_width: _Optional[bool] = ...) -> None: ...

class Word(_message.Message):
    __slots__ = ("text", "span", "piece_indices")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    PIECE_INDICES_FIELD_NUMBER: _ClassVar[int]
    text: str
    span: Span
    piece_indices: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, text: _Optional[str] = ..., span: _Optional[_Union[Span, _Mapping]] = ..., piece_indices: _Optional[_Iterable[int]] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("start_byte", "end_byte", "start_code_point", "end_code_point", "start_utf16", "end_utf16")
    START_BYTE_FIELD_NUMBER: _ClassVar[int]
    END_BYTE_FIELD_NUMBER: _ClassVar[int]
    START_CODE_POINT_FIELD_NUMBER: _ClassVar[int]
    END_CODE_POINT_FIELD_NUMBER: _ClassVar[int]
    START_UTF16_FIELD_NUMBER: _ClassVar[int]
    END_UTF16_FIELD_NUMBER: _ClassVar[int]
    start_byte: int
    end_byte: int
    start_code_point: int
    end_code_point: int
    start_utf16: int
    end_utf16: int
    def __init__(self, start_byte: _Optional[int] = ..., end_byte: _Optional[int] = ..., start_code_point: _Optional[int] = ..., end_code_point: _Optional[int] = ..., start_utf16: _Optional[int] = ..., end_utf16: _Optional[int] = ...) -> None: ...

class Matrix(_message.Message):
    __slots__ = ("rows", "columns", "packed_float32", "values")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    PACKED_FLOAT32_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    packed_float32: bytes
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ..., packed_float32: _Optional[bytes] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Alignment(_message.Message):
    __slots__ = ("word_weights", "piece_weights", "links", "shift", "method", "unaligned_target_words", "unaligned_source_words", "reverse_word_weights", "evidence", "posterior_word_weights", "posterior_piece_weights")
    WORD_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    PIECE_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    SHIFT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    UNALIGNED_TARGET_WORDS_FIELD_NUMBER: _ClassVar[int]
    UNALIGNED_SOURCE_WORDS_FIELD_NUMBER: _ClassVar[int]
    REVERSE_WORD_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    POSTERIOR_WORD_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    POSTERIOR_PIECE_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    word_weights: Matrix
    piece_weights: Matrix
    links: _containers.RepeatedCompositeFieldContainer[AlignmentLink]
    shift: int
    method: AlignmentMethod
    unaligned_target_words: _containers.RepeatedScalarFieldContainer[int]
    unaligned_source_words: _containers.RepeatedScalarFieldContainer[int]
    reverse_word_weights: Matrix
    evidence: AlignmentEvidence
    posterior_word_weights: Matrix
    posterior_piece_weights: Matrix
    def __init__(self, word_weights: _Optional[_Union[Matrix, _Mapping]] = ..., piece_weights: _Optional[_Union[Matrix, _Mapping]] = ..., links: _Optional[_Iterable[_Union[AlignmentLink, _Mapping]]] = ..., shift: _Optional[int] = ..., method: _Optional[_Union[AlignmentMethod, str]] = ..., unaligned_target_words: _Optional[_Iterable[int]] = ..., unaligned_source_words: _Optional[_Iterable[int]] = ..., reverse_word_weights: _Optional[_Union[Matrix, _Mapping]] = ..., evidence: _Optional[_Union[AlignmentEvidence, str]] = ..., posterior_word_weights: _Optional[_Union[Matrix, _Mapping]] = ..., posterior_piece_weights: _Optional[_Union[Matrix, _Mapping]] = ...) -> None: ...

class AlignmentLink(_message.Message):
    __slots__ = ("target_index", "source_index", "weight")
    TARGET_INDEX_FIELD_NUMBER: _ClassVar[int]
    SOURCE_INDEX_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    target_index: int
    source_index: int
    weight: float
    def __init__(self, target_index: _Optional[int] = ..., source_index: _Optional[int] = ..., weight: _Optional[float] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("source", "hypothesis", "forced", "attention_scores", "attention_weights", "decomposition", "warnings", "effective_options", "timings", "batch_size", "metadata", "suspicions")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    HYPOTHESIS_FIELD_NUMBER: _ClassVar[int]
    FORCED_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_SCORES_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    DECOMPOSITION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SUSPICIONS_FIELD_NUMBER: _ClassVar[int]
    source: TokenizedText
    hypothesis: Hypothesis
    forced: bool
    attention_scores: Matrix
    attention_weights: Matrix
    decomposition: Decomposition
    warnings: _containers.RepeatedCompositeFieldContainer[Warning]
    effective_options: DecodingOptions
    timings: Timings
    batch_size: int
    metadata: ResponseMetadata
    suspicions: _containers.RepeatedCompositeFieldContainer[Suspicion]
    def __init__(self, source: _Optional[_Union[TokenizedText, _Mapping]] = ..., hypothesis: _Optional[_Union[Hypothesis, _Mapping]] = ..., forced: _Optional[bool] = ..., attention_scores: _Optional[_Union[Matrix, _Mapping]] = ..., attention_weights: _Optional[_Union[Matrix, _Mapping]] = ..., decomposition: _Optional[_Union[Decomposition, _Mapping]] = ..., warnings: _Optional[_Iterable[_Union[Warning, _Mapping]]] = ..., effective_options: _Optional[_Union[DecodingOptions, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., batch_size: _Optional[int] = ..., metadata: _Optional[_Union[ResponseMetadata, _Mapping]] = ..., suspicions: _Optional[_Iterable[_Union[Suspicion, _Mapping]]] = ...) -> None: ...

class Decomposition(_message.Message):
    __slots__ = ("tables", "terms", "reconstruction_error", "subset_distances", "encoder_components", "decoder_components")
    TABLES_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    RECONSTRUCTION_ERROR_FIELD_NUMBER: _ClassVar[int]
    SUBSET_DISTANCES_FIELD_NUMBER: _ClassVar[int]
    ENCODER_COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    DECODER_COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    tables: ComponentTables
    terms: _containers.RepeatedCompositeFieldContainer[Term]
    reconstruction_error: float
    subset_distances: _containers.RepeatedCompositeFieldContainer[SubsetDistance]
    encoder_components: SideComponents
    decoder_components: SideComponents
    def __init__(self, tables: _Optional[_Union[ComponentTables, _Mapping]] = ..., terms: _Optional[_Iterable[_Union[Term, _Mapping]]] = ..., reconstruction_error: _Optional[float] = ..., subset_distances: _Optional[_Iterable[_Union[SubsetDistance, _Mapping]]] = ..., encoder_components: _Optional[_Union[SideComponents, _Mapping]] = ..., decoder_components: _Optional[_Union[SideComponents, _Mapping]] = ...) -> None: ...

class SideComponents(_message.Message):
    __slots__ = ("temporal_curve", "temporal_norms", "input_driven_norms", "delta_norms", "nearest_tokens", "states", "temporal", "input_driven")
    TEMPORAL_CURVE_FIELD_NUMBER: _ClassVar[int]
    TEMPORAL_NORMS_FIELD_NUMBER: _ClassVar[int]
    INPUT_DRIVEN_NORMS_FIELD_NUMBER: _ClassVar[int]
    DELTA_NORMS_FIELD_NUMBER: _ClassVar[int]
    NEAREST_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    TEMPORAL_FIELD_NUMBER: _ClassVar[int]
    INPUT_DRIVEN_FIELD_NUMBER: _ClassVar[int]
    temporal_curve: Matrix
    temporal_norms: _containers.RepeatedScalarFieldContainer[float]
    input_driven_norms: _containers.RepeatedScalarFieldContainer[float]
    delta_norms: _containers.RepeatedScalarFieldContainer[float]
    nearest_tokens: _containers.RepeatedCompositeFieldContainer[NearestTokens]
    states: Matrix
    temporal: Matrix
    input_driven: Matrix
    def __init__(self, temporal_curve: _Optional[_Union[Matrix, _Mapping]] = ..., temporal_norms: _Optional[_Iterable[float]] = ..., input_driven_norms: _Optional[_Iterable[float]] = ..., delta_norms: _Optional[_Iterable[float]] = ..., nearest_tokens: _Optional[_Iterable[_Union[NearestTokens, _Mapping]]] = ..., states: _Optional[_Union[Matrix, _Mapping]] = ..., temporal: _Optional[_Union[Matrix, _Mapping]] = ..., input_driven: _Optional[_Union[Matrix, _Mapping]] = ...) -> None: ...

class NearestTokens(_message.Message):
    __slots__ = ("token_id", "piece", "neighbors")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    NEIGHBORS_FIELD_NUMBER: _ClassVar[int]
    token_id: int
    piece: str
    neighbors: _containers.RepeatedCompositeFieldContainer[NearToken]
    def __init__(self, token_id: _Optional[int] = ..., piece: _Optional[str] = ..., neighbors: _Optional[_Iterable[_Union[NearToken, _Mapping]]] = ...) -> None: ...

class NearToken(_message.Message):
    __slots__ = ("token_id", "piece", "cosine")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    COSINE_FIELD_NUMBER: _ClassVar[int]
    token_id: int
    piece: str
    cosine: float
    def __init__(self, token_id: _Optional[int] = ..., piece: _Optional[str] = ..., cosine: _Optional[float] = ...) -> None: ...

class Term(_message.Message):
    __slots__ = ("encoder", "decoder", "contribution", "share", "row_shares")
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    ROW_SHARES_FIELD_NUMBER: _ClassVar[int]
    encoder: Component
    decoder: Component
    contribution: Matrix
    share: float
    row_shares: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, encoder: _Optional[_Union[Component, str]] = ..., decoder: _Optional[_Union[Component, str]] = ..., contribution: _Optional[_Union[Matrix, _Mapping]] = ..., share: _Optional[float] = ..., row_shares: _Optional[_Iterable[float]] = ...) -> None: ...

class SubsetDistance(_message.Message):
    __slots__ = ("subset", "total_variation")
    SUBSET_FIELD_NUMBER: _ClassVar[int]
    TOTAL_VARIATION_FIELD_NUMBER: _ClassVar[int]
    subset: str
    total_variation: float
    def __init__(self, subset: _Optional[str] = ..., total_variation: _Optional[float] = ...) -> None: ...

class ComponentTables(_message.Message):
    __slots__ = ("id", "digest", "corpus", "sentences", "minimum_count")
    ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CORPUS_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_COUNT_FIELD_NUMBER: _ClassVar[int]
    id: str
    digest: str
    corpus: str
    sentences: int
    minimum_count: int
    def __init__(self, id: _Optional[str] = ..., digest: _Optional[str] = ..., corpus: _Optional[str] = ..., sentences: _Optional[int] = ..., minimum_count: _Optional[int] = ...) -> None: ...

class ContrastResponse(_message.Message):
    __slots__ = ("source", "chosen", "alternative", "log_probability_difference", "source_weight_differences", "share_differences", "warnings", "effective_options", "metadata")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVE_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_WEIGHT_DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    SHARE_DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    source: TokenizedText
    chosen: ContrastSide
    alternative: ContrastSide
    log_probability_difference: float
    source_weight_differences: _containers.RepeatedScalarFieldContainer[float]
    share_differences: _containers.RepeatedScalarFieldContainer[float]
    warnings: _containers.RepeatedCompositeFieldContainer[Warning]
    effective_options: DecodingOptions
    metadata: ResponseMetadata
    def __init__(self, source: _Optional[_Union[TokenizedText, _Mapping]] = ..., chosen: _Optional[_Union[ContrastSide, _Mapping]] = ..., alternative: _Optional[_Union[ContrastSide, _Mapping]] = ..., log_probability_difference: _Optional[float] = ..., source_weight_differences: _Optional[_Iterable[float]] = ..., share_differences: _Optional[_Iterable[float]] = ..., warnings: _Optional[_Iterable[_Union[Warning, _Mapping]]] = ..., effective_options: _Optional[_Union[DecodingOptions, _Mapping]] = ..., metadata: _Optional[_Union[ResponseMetadata, _Mapping]] = ...) -> None: ...

class ContrastSide(_message.Message):
    __slots__ = ("hypothesis", "target_words", "log_probability", "source_weights", "shares")
    HYPOTHESIS_FIELD_NUMBER: _ClassVar[int]
    TARGET_WORDS_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    hypothesis: Hypothesis
    target_words: _containers.RepeatedScalarFieldContainer[int]
    log_probability: float
    source_weights: _containers.RepeatedScalarFieldContainer[float]
    shares: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, hypothesis: _Optional[_Union[Hypothesis, _Mapping]] = ..., target_words: _Optional[_Iterable[int]] = ..., log_probability: _Optional[float] = ..., source_weights: _Optional[_Iterable[float]] = ..., shares: _Optional[_Iterable[float]] = ...) -> None: ...

class ListAlternativesResponse(_message.Message):
    __slots__ = ("source", "target", "alternatives", "effective_options", "metadata")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    source: TokenizedText
    target: TokenizedText
    alternatives: _containers.RepeatedCompositeFieldContainer[Alternative]
    effective_options: DecodingOptions
    metadata: ResponseMetadata
    def __init__(self, source: _Optional[_Union[TokenizedText, _Mapping]] = ..., target: _Optional[_Union[TokenizedText, _Mapping]] = ..., alternatives: _Optional[_Iterable[_Union[Alternative, _Mapping]]] = ..., effective_options: _Optional[_Union[DecodingOptions, _Mapping]] = ..., metadata: _Optional[_Union[ResponseMetadata, _Mapping]] = ...) -> None: ...

class Alternative(_message.Message):
    __slots__ = ("text", "log_probability", "hypothesis")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    HYPOTHESIS_FIELD_NUMBER: _ClassVar[int]
    text: str
    log_probability: float
    hypothesis: Hypothesis
    def __init__(self, text: _Optional[str] = ..., log_probability: _Optional[float] = ..., hypothesis: _Optional[_Union[Hypothesis, _Mapping]] = ...) -> None: ...

class WhatIfResponse(_message.Message):
    __slots__ = ("source", "changed_source", "baseline", "changed", "baseline_words_changed", "changed_words", "log_probability_change", "token_log_probability_changes", "attention_distance", "row_attention_distances", "warnings", "effective_options", "metadata")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_SOURCE_FIELD_NUMBER: _ClassVar[int]
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    BASELINE_WORDS_CHANGED_FIELD_NUMBER: _ClassVar[int]
    CHANGED_WORDS_FIELD_NUMBER: _ClassVar[int]
    LOG_PROBABILITY_CHANGE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_LOG_PROBABILITY_CHANGES_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    ROW_ATTENTION_DISTANCES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    source: TokenizedText
    changed_source: TokenizedText
    baseline: Hypothesis
    changed: Hypothesis
    baseline_words_changed: _containers.RepeatedScalarFieldContainer[int]
    changed_words: _containers.RepeatedScalarFieldContainer[int]
    log_probability_change: float
    token_log_probability_changes: _containers.RepeatedScalarFieldContainer[float]
    attention_distance: float
    row_attention_distances: _containers.RepeatedScalarFieldContainer[float]
    warnings: _containers.RepeatedCompositeFieldContainer[Warning]
    effective_options: DecodingOptions
    metadata: ResponseMetadata
    def __init__(self, source: _Optional[_Union[TokenizedText, _Mapping]] = ..., changed_source: _Optional[_Union[TokenizedText, _Mapping]] = ..., baseline: _Optional[_Union[Hypothesis, _Mapping]] = ..., changed: _Optional[_Union[Hypothesis, _Mapping]] = ..., baseline_words_changed: _Optional[_Iterable[int]] = ..., changed_words: _Optional[_Iterable[int]] = ..., log_probability_change: _Optional[float] = ..., token_log_probability_changes: _Optional[_Iterable[float]] = ..., attention_distance: _Optional[float] = ..., row_attention_distances: _Optional[_Iterable[float]] = ..., warnings: _Optional[_Iterable[_Union[Warning, _Mapping]]] = ..., effective_options: _Optional[_Union[DecodingOptions, _Mapping]] = ..., metadata: _Optional[_Union[ResponseMetadata, _Mapping]] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("kind", "message", "side", "positions")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    kind: WarningKind
    message: str
    side: Side
    positions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, kind: _Optional[_Union[WarningKind, str]] = ..., message: _Optional[str] = ..., side: _Optional[_Union[Side, str]] = ..., positions: _Optional[_Iterable[int]] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue_seconds", "tokenize_seconds", "encode_seconds", "decode_seconds", "explain_seconds", "detokenize_seconds")
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOKENIZE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DECODE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DETOKENIZE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    queue_seconds: float
    tokenize_seconds: float
    encode_seconds: float
    decode_seconds: float
    explain_seconds: float
    detokenize_seconds: float
    def __init__(self, queue_seconds: _Optional[float] = ..., tokenize_seconds: _Optional[float] = ..., encode_seconds: _Optional[float] = ..., decode_seconds: _Optional[float] = ..., explain_seconds: _Optional[float] = ..., detokenize_seconds: _Optional[float] = ...) -> None: ...

class ResponseMetadata(_message.Message):
    __slots__ = ("request_id", "model", "model_version", "model_digest", "device", "total_seconds")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    model_version: str
    model_digest: str
    device: str
    total_seconds: float
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ..., model_digest: _Optional[str] = ..., device: _Optional[str] = ..., total_seconds: _Optional[float] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("folder",)
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    folder: str
    def __init__(self, folder: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("model", "previous_version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    model: Model
    previous_version: str
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., previous_version: _Optional[str] = ...) -> None: ...

class ActivateModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class ActivateModelResponse(_message.Message):
    __slots__ = ("model", "previous_version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    model: Model
    previous_version: str
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ..., previous_version: _Optional[str] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "digest", "is_default", "source_language_code", "target_language_code", "architecture", "sizes", "score_kind", "precision", "device", "max_source_tokens", "max_target_tokens", "quality", "training_data", "license", "credit", "tables", "card", "files", "is_active")
    class SizesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    TARGET_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    SCORE_KIND_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    MAX_SOURCE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_TARGET_TOKENS_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    TRAINING_DATA_FIELD_NUMBER: _ClassVar[int]
    LICENSE_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    TABLES_FIELD_NUMBER: _ClassVar[int]
    CARD_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    IS_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    digest: str
    is_default: bool
    source_language_code: str
    target_language_code: str
    architecture: str
    sizes: _containers.ScalarMap[str, int]
    score_kind: str
    precision: str
    device: str
    max_source_tokens: int
    max_target_tokens: int
    quality: _containers.RepeatedCompositeFieldContainer[QualityFigure]
    training_data: str
    license: str
    credit: str
    tables: ComponentTables
    card: str
    files: _containers.RepeatedCompositeFieldContainer[ModelFile]
    is_active: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ..., is_default: _Optional[bool] = ..., source_language_code: _Optional[str] = ..., target_language_code: _Optional[str] = ..., architecture: _Optional[str] = ..., sizes: _Optional[_Mapping[str, int]] = ..., score_kind: _Optional[str] = ..., precision: _Optional[str] = ..., device: _Optional[str] = ..., max_source_tokens: _Optional[int] = ..., max_target_tokens: _Optional[int] = ..., quality: _Optional[_Iterable[_Union[QualityFigure, _Mapping]]] = ..., training_data: _Optional[str] = ..., license: _Optional[str] = ..., credit: _Optional[str] = ..., tables: _Optional[_Union[ComponentTables, _Mapping]] = ..., card: _Optional[str] = ..., files: _Optional[_Iterable[_Union[ModelFile, _Mapping]]] = ..., is_active: _Optional[bool] = ...) -> None: ...

class QualityFigure(_message.Message):
    __slots__ = ("test_set", "metric", "value", "signature")
    TEST_SET_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    test_set: str
    metric: str
    value: float
    signature: str
    def __init__(self, test_set: _Optional[str] = ..., metric: _Optional[str] = ..., value: _Optional[float] = ..., signature: _Optional[str] = ...) -> None: ...

class ModelFile(_message.Message):
    __slots__ = ("name", "sha256", "size_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    size_bytes: int
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...
