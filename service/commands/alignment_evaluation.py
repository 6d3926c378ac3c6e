"""How well a running service aligns sentence pairs that people have aligned.

The service is made to translate each source into its gold target. Its links are drawn here, between the gold words,
so that one answer serves every shift and method.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc

from bundle.alignment import AlignmentQuality, Link, links, links_both_ways, shifted
from bundle.gold import GoldPair, diagonal_quality, gold_matrix, quality, uniform_quality
from bundle.symmetrization import RULES
from bundle.tokenizer import Piece, Span, TokenizedText
from service.client import CallFailed, Client, array
from service.commands.lines import LINES_IN_FLIGHT
from service.commands.published import PublishedSet, published_on
from service.pb import interlinear_pb2 as pb


@dataclass(frozen=True)
class Reading:
    """One way to draw links.

    Attributes:
        evidence: ``attention``, or ``posterior`` (``bundle.alignment.posterior``).
        method: ``argmax``, ``threshold``, or a key of ``bundle.symmetrization.RULES``.
        shift: Rows by which attention is moved before it is read; always 0 for the posterior.
        threshold: For the method ``threshold``.
    """

    evidence: str
    method: str
    shift: int = 0
    threshold: float | None = None


@dataclass(frozen=True)
class Row:
    """How well one reading aligns.

    Attributes:
        reading: The reading.
        is_bundle_shift: Whether it is attention at the shift at which the service reads it.
        quality: Error rate, precision, recall, links.
    """

    reading: Reading
    is_bundle_shift: bool
    quality: AlignmentQuality


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluate`` found.

    Attributes:
        model: Name of the model.
        model_digest: Its manifest's.
        pairs: Sentence pairs of the gold set.
        refused: Those that the service would not read, mostly for their length: they count as without links.
        misplaced: Gold links to words that are not there: they count as not found.
        rows: One a reading.
        diagonal: What linking words at the same relative place would reach.
        uniform: What linking at random would reach, in expectation.
        published: What others reached, where the set is well known.
    """

    model: str
    model_digest: str
    pairs: int
    refused: int
    misplaced: int
    rows: tuple[Row, ...]
    diagonal: AlignmentQuality
    uniform: AlignmentQuality
    published: PublishedSet | None


async def evaluate(
    client: Client, model: str, gold: Sequence[GoldPair], readings: Sequence[Reading], tick: Callable[[int], None]
) -> Evaluation:
    """Return how well each of ``readings`` aligns ``gold``; those of a posterior that the bundle lacks are left out.

    Args:
        client: Of the service.
        model: Name of the model; empty for the default one.
        gold: What people have aligned.
        readings: How to draw links.
        tick: Called with the number of calls still to come, after each.

    Raises:
        CallFailed: The service cannot be reached, cannot draw links in one of these ways, or refuses every pair.
    """
    both_ways = next((reading.method for reading in readings if reading.method in RULES), None)
    replies = {"attention": await _replies(client, model, gold, _options("attention", both_ways), tick)}
    answered = [reply for reply in replies["attention"] if reply is not None]
    if not answered:
        message = f"the service refused all of the {len(gold)} pairs; are they of the languages that it translates?"
        raise CallFailed(message, grpc.StatusCode.INVALID_ARGUMENT)
    if answered[0].hypothesis.alignment.HasField("posterior_piece_weights"):
        replies["posterior"] = replies["attention"]
        if both_ways and any(reading.evidence == "posterior" for reading in readings):
            replies["posterior"] = await _replies(client, model, gold, _options("posterior", both_ways), tick)
    bundle_shift = answered[0].hypothesis.alignment.shift
    rows = []
    for reading in readings:
        if reading.evidence not in replies:
            continue
        answers = [
            set() if reply is None else {link.pair for link in _links(reply, pair, reading)}
            for reply, pair in zip(replies[reading.evidence], gold, strict=True)
        ]
        is_bundle_shift = reading.evidence == "attention" and reading.shift == bundle_shift
        rows.append(Row(reading, is_bundle_shift, quality(answers, gold)))
    return Evaluation(
        model=answered[0].metadata.model,
        model_digest=answered[0].metadata.model_digest,
        pairs=len(gold),
        refused=len(gold) - len(answered),
        misplaced=sum(pair.misplaced for pair in gold),
        rows=tuple(rows),
        diagonal=diagonal_quality(gold),
        uniform=uniform_quality(gold),
        published=published_on(len(gold), sum(len(pair.sure) for pair in gold)),
    )


def _options(evidence: str, method: str | None) -> pb.AlignmentOptions | None:
    """Return what makes a reply hold the weights of the reverse model too, if a method needs them."""
    if method is None:
        return None
    return pb.AlignmentOptions(
        evidence=f"ALIGNMENT_EVIDENCE_{evidence.upper()}", method=f"ALIGNMENT_METHOD_{method.upper()}"
    )


async def _replies(
    client: Client,
    model: str,
    gold: Sequence[GoldPair],
    options: pb.AlignmentOptions | None,
    tick: Callable[[int], None],
) -> list[pb.ExplainResponse | None]:
    """Return what the service tells of each gold target; None if it refuses the pair."""
    views = (pb.EXPLANATION_VIEW_SCORES, pb.EXPLANATION_VIEW_ALIGNMENT)
    room, left = asyncio.Semaphore(LINES_IN_FLIGHT), len(gold)

    async def ask(pair: GoldPair) -> pb.ExplainResponse | None:
        nonlocal left
        request = pb.ExplainRequest(
            model=model, text=pair.source_text, target=pair.target_text, views=views, alignment_options=options
        )
        async with room:
            try:
                return await client.explain(request)
            except CallFailed as failure:
                if failure.field not in ("text", "target"):
                    raise
                return None
            finally:
                left -= 1
                tick(left)

    return list(await asyncio.gather(*map(ask, gold)))


def _links(reply: pb.ExplainResponse, pair: GoldPair, reading: Reading) -> tuple[Link, ...]:
    """Return the links between the gold words that one reading draws."""
    source, target, alignment = reply.source, reply.hypothesis.target, reply.hypothesis.alignment
    weights = shifted(array(reply.attention_weights), reading.shift)
    if reading.evidence == "posterior":
        weights = array(alignment.posterior_piece_weights)
    matrix = gold_matrix(weights, _pieces(target), _pieces(source), pair)
    if reading.method not in RULES:
        return links(matrix, len(pair.target), reading.threshold)
    turned = GoldPair(pair.target, pair.source, frozenset(), frozenset())
    reverse = gold_matrix(array(alignment.reverse_word_weights), _words(source), _words(target), turned)
    return links_both_ways(matrix, reverse, reading.method)


def _pieces(text: pb.TokenizedText) -> TokenizedText:
    pieces = (
        Piece(piece.token_id, piece.piece, piece.text, _span(piece.span), None, piece.zero_width)
        for piece in text.pieces
    )
    return TokenizedText.of(text.text, tuple(pieces), ())


def _words(text: pb.TokenizedText) -> TokenizedText:
    """Return ``text`` with its words for pieces: those of the reverse model are not told, only what words get."""
    pieces = (Piece(0, word.text, word.text, _span(word.span), None, False) for word in text.words)
    return TokenizedText.of(text.text, tuple(pieces), ())


def _span(span: pb.Span) -> Span:
    return Span(*(getattr(span, field.name) for field in span.DESCRIPTOR.fields))
