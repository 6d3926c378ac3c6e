"""What requests ask for, in the words of the use cases: pure functions from protobuf to our types."""

from collections.abc import Collection

from google.protobuf.message import Message

from service.errors import OptionOutOfRange, StreamInvalid, UnknownEnumValue
from service.pb import interlinear_pb2 as pb
from service.translation import Guard, TranslationOptions
from service.what_if import GivenRow, Intervention

OPTION_FIELDS = {  # proto name: domain name
    "beam_size": "beam_size",
    "num_hypotheses": "n_best",
    "length_penalty": "length_penalty",
    "max_target_tokens": "max_target_tokens",
    "forced_prefix": "forced_prefix",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
}
ALIGNMENT_METHODS = {  # proto number: domain name
    number: name.removeprefix("ALIGNMENT_METHOD_").lower()
    for name, number in pb.AlignmentMethod.items()
    if number != pb.ALIGNMENT_METHOD_UNSPECIFIED
}
ALIGNMENT_EVIDENCE = {  # proto number: domain name
    pb.ALIGNMENT_EVIDENCE_ATTENTION: "attention",
    pb.ALIGNMENT_EVIDENCE_POSTERIOR: "posterior",
}
GUARDS: dict[int, Guard] = {  # proto number: domain name
    pb.TRANSLATION_GUARD_UNSPECIFIED: "free",
    pb.TRANSLATION_GUARD_REPORT: "report",
    pb.TRANSLATION_GUARD_RETRY: "retry",
}
_COMPONENTS = {  # proto number: domain name
    number: name.removeprefix("COMPONENT_").lower()
    for name, number in pb.Component.items()
    if number != pb.COMPONENT_UNSPECIFIED
}
_DEFAULT_LIMIT = 5  # alternatives


def read_options(
    options: pb.DecodingOptions,
    alignment: bool,
    drawing: pb.AlignmentOptions | None = None,
    guard: int = pb.TRANSLATION_GUARD_UNSPECIFIED,
) -> TranslationOptions:
    """Return the options of a request; those that are absent take their defaults. Ranges are not checked here.

    Args:
        options: How to search.
        alignment: Whether an alignment is wanted.
        drawing: How to draw its links.
        guard: How closely to look for a translation that went wrong (a TranslationGuard).
    """
    given = {domain: getattr(options, field) for field, domain in OPTION_FIELDS.items() if options.HasField(field)}
    if drawing is not None and drawing.method in ALIGNMENT_METHODS:
        given["alignment_method"] = ALIGNMENT_METHODS[drawing.method]
    if drawing is not None and drawing.HasField("threshold"):
        given["alignment_threshold"] = drawing.threshold
    if drawing is not None and drawing.evidence in ALIGNMENT_EVIDENCE:
        given["alignment_evidence"] = ALIGNMENT_EVIDENCE[drawing.evidence]
    return TranslationOptions(**given, alignment=alignment, guard=GUARDS[guard])


def read_views(views: Collection[int]) -> frozenset[int]:
    """Return the views asked for: when none is named, all of them but the states, which can outweigh the others.

    Raises:
        OptionOutOfRange: There are more than there are views.
        UnknownEnumValue: A view is unspecified.
    """
    known = {number: name for name, number in pb.ExplanationView.items() if number != pb.EXPLANATION_VIEW_UNSPECIFIED}
    _check_count("views", len(views), len(known))
    if not known.keys() >= set(views):
        message = (
            f"views holds EXPLANATION_VIEW_UNSPECIFIED; choose from {', '.join(known.values())}, or leave it empty"
        )
        raise UnknownEnumValue("views", message)
    return frozenset(views or known.keys() - {pb.EXPLANATION_VIEW_STATES})


def read_intervention(intervention: pb.Intervention) -> Intervention:
    """Return what to change; whether the model has such words and tokens is not checked here.

    Raises:
        UnknownEnumValue: A term names no component.
        OptionOutOfRange: There are more terms than nine, or a row of attention is given nothing.
    """
    _check_count("intervention.kept_terms", len(intervention.kept_terms), len(_COMPONENTS) ** 2)
    return Intervention(
        kept_terms=tuple(
            (
                _component(term.encoder, f"intervention.kept_terms[{index}].encoder"),
                _component(term.decoder, f"intervention.kept_terms[{index}].decoder"),
            )
            for index, term in enumerate(intervention.kept_terms)
        ),
        masked_source_words=tuple(intervention.masked_source_words),
        replaced_source_words=tuple((word.source_word, word.text) for word in intervention.replaced_source_words),
        given_attention=tuple(
            _given_row(row, f"intervention.given_attention[{index}]")
            for index, row in enumerate(intervention.given_attention)
        ),
    )


def read_limit(request: pb.ListAlternativesRequest) -> int:
    """Return how many alternatives are wanted; the range is not checked here."""
    return int(request.limit) if request.HasField("limit") else _DEFAULT_LIMIT


def read_document(request: pb.TranslateStreamRequest | None) -> pb.DocumentOptions:
    """Return how to translate a document, from the first message of its stream; None is a stream without any.

    Raises:
        StreamInvalid: It begins with something else.
        OptionOutOfRange: Every sentence is to begin with the same text, or the sentences before the first are known.
    """
    if request is None or request.WhichOneof("request") != "options":
        raise StreamInvalid("options", "a document begins with its options; send them first, and then its text")
    document = request.options
    if document.options.forced_prefix:
        message = "forced_prefix is the beginning of one translation, and a document has many; leave it out"
        raise OptionOutOfRange("options.forced_prefix", message)
    if document.last_sequence_id < 0:
        message = f"last_sequence_id is {document.last_sequence_id}; allowed is 0 (the beginning) and above"
        raise OptionOutOfRange("last_sequence_id", message)
    return document


def read_part(request: pb.TranslateStreamRequest) -> str:
    """Return the next part of a document.

    Raises:
        StreamInvalid: The message holds something else.
    """
    if request.WhichOneof("request") != "text":
        raise StreamInvalid("text", "after its options, a document has nothing but text; send options once, and first")
    return str(request.text)


def refuse_options(options: pb.DecodingOptions) -> None:
    """Accept only empty options: a target that the caller gives is scored, not searched.

    Raises:
        OptionOutOfRange: An option is set.
    """
    for field, _ in options.ListFields():
        message = f"{field.name} steers the search for a translation, and a given target is not searched; leave it out"
        raise OptionOutOfRange(f"options.{field.name}", message)


def refuse_given_prefix(request: pb.ContrastRequest | pb.ListAlternativesRequest) -> None:
    """Accept a prefix for our translation only: a target that the caller gives begins as it does.

    Raises:
        OptionOutOfRange: There are both.
    """
    if request.HasField("target") and request.options.forced_prefix:
        message = "forced_prefix is the beginning of our translation, and a target is given; leave one of them out"
        raise OptionOutOfRange("options.forced_prefix", message)


def refuse_several(options: TranslationOptions) -> None:
    """Accept only options that ask for one translation.

    Raises:
        OptionOutOfRange: They ask for more.
    """
    if options.n_best != 1:
        message = f"num_hypotheses is {options.n_best}; this call is about one translation, leave it out"
        raise OptionOutOfRange("options.num_hypotheses", message)


def smaller(request: Message) -> str:
    """Return what to change in ``request`` so that its reply gets smaller."""
    if isinstance(request, pb.ExplainRequest):
        views = read_views(request.views)
        for view in (
            pb.EXPLANATION_VIEW_STATES,
            pb.EXPLANATION_VIEW_TERMS,
            pb.EXPLANATION_VIEW_SCORES,
            pb.EXPLANATION_VIEW_ALIGNMENT,
        ):
            if view in views:
                return f"Leave {pb.ExplanationView.Name(view)} out of views, or explain a shorter text"
    if isinstance(request, pb.TranslateRequest) and request.alignment == pb.ALIGNMENT_DETAIL_PIECES:
        return "Ask for ALIGNMENT_DETAIL_WORDS instead of ALIGNMENT_DETAIL_PIECES, or send fewer texts"
    if isinstance(request, pb.ListAlternativesRequest):
        return "Lower limit, or send a shorter text"
    return "Send fewer or shorter texts"


def _check_count(field: str, count: int, most: int) -> None:
    if count > most:
        raise OptionOutOfRange(field, f"{field} has {count} items; allowed is up to {most}, each once")


def _component(number: int, field: str) -> str:
    if number not in _COMPONENTS:
        names = ", ".join(f"COMPONENT_{name.upper()}" for name in _COMPONENTS.values())
        raise UnknownEnumValue(field, f"{field} is COMPONENT_UNSPECIFIED; choose from {names}")
    return str(_COMPONENTS[number])


def _given_row(row: pb.GivenAttention, field: str) -> GivenRow:
    target_token = row.target_token if row.HasField("target_token") else None
    match row.WhichOneof("attention"):
        case "flat" if row.flat:
            return GivenRow(target_token, flat=True)
        case "source_word":
            return GivenRow(target_token, source_word=row.source_word)
        case "weights" if row.weights.values:
            return GivenRow(target_token, weights=tuple(row.weights.values))
    raise OptionOutOfRange(field, f"{field} gives no attention; set flat (to true), source_word or weights")
