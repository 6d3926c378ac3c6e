"""What a translation is, and what may be asked of one: the types that use cases and the edge share; no protobuf.

Rows are target pieces (end of sentence included), columns are source pieces (end of sentence included), everywhere.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from bundle.search import Trace
from bundle.tokenizer import TokenizedText
from service.batch import Job, Progress
from service.guard import Suspicion
from service.scheduler import Outcome

Guard = Literal["free", "report", "retry"]


@dataclass(frozen=True)
class TranslationOptions:
    """How to decode.

    Attributes:
        beam_size: Hypotheses kept at a step, 1 to 16; 1 is greedy.
        n_best: Translations wanted, 1 to ``beam_size``.
        length_penalty: Exponent of the length that divides a log probability to rank hypotheses; 0 ranks by the sum.
        max_target_tokens: Longest translation in tokens, end of sentence included; None takes the bundle's limit.
        forced_prefix: Text that every translation starts with.
        alignment: Whether to return an alignment with every translation.
        alignment_method: One of ``service.aligner.ALIGNMENT_METHODS``; None takes ``threshold`` where links are drawn
            from the posterior, and ``argmax`` where from attention.
        alignment_threshold: Least weight of a link, above 0 to 1, for the method ``threshold``; None takes 0.5.
        alignment_evidence: The weights to draw links from, ``attention`` or ``posterior``; None takes the posterior
            where the bundle gives it.
        no_repeat_ngram_size: No run of so many tokens comes twice, but for what the forced prefix repeats; 0 to 16, 0
            allows all.
        guard: How closely to look for a translation that went wrong: ``free``, ``report`` (attention too) or ``retry``
            (the same, and one that loops is made once more).
    """

    beam_size: int = 4
    n_best: int = 1
    length_penalty: float = 1.0
    max_target_tokens: int | None = None
    forced_prefix: str = ""
    alignment: bool = False
    alignment_method: str | None = None
    alignment_threshold: float | None = None
    alignment_evidence: str | None = None
    no_repeat_ngram_size: int = 0
    guard: Guard = "free"

    @property
    def traced(self) -> bool:
        """Whether attention is needed."""
        return self.alignment or self.guard != "free"


@dataclass(frozen=True)
class Alignment:
    """Which source word a target word was made from, as attention says: a reading aid, not a cause.

    Attributes:
        word_matrix: Source pieces summed, target pieces averaged; last row and column are the end of sentence. Rows
            sum to 1.
        piece_weights: Attention weights of every piece, moved by ``shift``. Rows sum to 1.
        links: ``(target word, source word, weight)``, by word index, in order.
        shift: Rows by which the attention was moved before reading it; the bundle's.
        evidence: What links and their weights were drawn from: ``attention``, the two matrices above, or ``posterior``.
        method: How ``links`` were drawn, one of ``service.aligner.ALIGNMENT_METHODS``.
        unaligned_target: Target words without a link.
        unaligned_source: Source words without a link.
        reverse_word_matrix: The same weights of the reverse model, its rows the source; None for methods that read one
            direction.
        posterior_word_matrix: As ``word_matrix``: weights once each word is known (``bundle.alignment.posterior``);
            None where the bundle does not give them.
        posterior_piece_weights: As ``piece_weights``, but never moved: they are about the token that was emitted.
    """

    word_matrix: Float[np.ndarray, "target_word source_word"]
    piece_weights: Float[np.ndarray, "target source"]
    links: tuple[tuple[int, int, float], ...]
    shift: int
    evidence: str
    method: str
    unaligned_target: tuple[int, ...]
    unaligned_source: tuple[int, ...]
    reverse_word_matrix: Float[np.ndarray, "source_word target_word"] | None = None
    posterior_word_matrix: Float[np.ndarray, "target_word source_word"] | None = None
    posterior_piece_weights: Float[np.ndarray, "target source"] | None = None


@dataclass(frozen=True)
class TranslatedHypothesis:
    """One translation.

    Attributes:
        text: The translation.
        log_probability: Sum over tokens, in nats.
        normalized_score: ``log_probability / length ** length_penalty``, the length counting the end of sentence.
        token_log_probabilities: One a piece of ``target``, then that of the end of sentence where it was emitted.
        finish_reason: ``eos`` or ``max_length``.
        target: Pieces and words, with spans into ``text``.
        alignment: None unless asked for.
    """

    text: str
    log_probability: float
    normalized_score: float
    token_log_probabilities: tuple[float, ...]
    finish_reason: str
    target: TokenizedText
    alignment: Alignment | None = None

    @property
    def word_log_probabilities(self) -> tuple[float, ...]:
        """Log probability of each word of ``target`` after those before it: the sum over its pieces, in nats."""
        return tuple(
            sum(self.token_log_probabilities[index] for index in word.piece_indices) for word in self.target.words
        )


@dataclass(frozen=True)
class Timings:
    """Seconds a text spent in every stage; encode and decode include waiting for the others of its batch."""

    queue: float
    tokenize: float
    encode: float
    decode: float
    explain: float
    detokenize: float

    @property
    def by_stage(self) -> dict[str, float]:
        """The same by name, in the order in which a text goes through them."""
        return {
            stage: getattr(self, stage) for stage in ("tokenize", "queue", "encode", "decode", "detokenize", "explain")
        }

    def __add__(self, other: "Timings") -> "Timings":
        """Return what both took together."""
        return Timings(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True)
class Translation:
    """The answer to one text.

    Attributes:
        hypotheses: Best first, all different, ``n_best`` of them where the search found as many.
        source: Pieces and words of the source, with spans into the text as given.
        timings: Where the time went.
        batch_size: Most sentences that shared a step with this one, itself included.
        suspicions: What speaks against the best hypothesis.
        retried: Whether it is a second one, with repetition blocked.
    """

    hypotheses: tuple[TranslatedHypothesis, ...]
    source: TokenizedText
    timings: Timings
    batch_size: int
    suspicions: tuple[Suspicion, ...] = ()
    retried: bool = False


@dataclass(frozen=True)
class PreparedText:
    """A text in tokens, ready to decode.

    Attributes:
        source: The text.
        target: The given target; None where the tokens of the answer are to be read as they come.
        job: What to do with it.
        options: What was asked for.
        tokenize_seconds: Time it took.
    """

    source: TokenizedText
    target: TokenizedText | None
    job: Job
    options: TranslationOptions
    tokenize_seconds: float

    def following(self) -> "PreparedText":
        """Return the same, to be done for a call of which a job was done before."""
        return replace(self, job=replace(self.job, follows=True))

    def telling(self, progress: Progress) -> "PreparedText":
        """Return the same, of which ``progress`` is told what is certain while it is done; see ``Job``."""
        return replace(self, job=replace(self.job, progress=progress))

    def scoring(self, target_ids: tuple[int, ...]) -> "PreparedText":
        """Return the same text, with these tokens to be scored as its translation."""
        return replace(self, target=None, job=replace(self.job, target_ids=target_ids))


@dataclass(frozen=True)
class TracedTranslation:
    """A translation with what its hypotheses are explained from.

    Attributes:
        translation: The answer.
        source_ids: Tokens of the source, end of sentence included.
        target_ids: Tokens of each hypothesis, end of sentence included where it was emitted.
        traces: Attention scores, weights and queries of each hypothesis.
        attention_keys: Keys of the source.
    """

    translation: Translation
    source_ids: tuple[int, ...]
    target_ids: tuple[tuple[int, ...], ...]
    traces: tuple[Trace, ...]
    attention_keys: Float[np.ndarray, "source key"]

    @property
    def size(self) -> int:
        """The number of weights of the first hypothesis."""
        return len(self.source_ids) * len(self.target_ids[0])

    def only(self, index: int) -> "TracedTranslation":
        """Return the same with the hypothesis ``index`` alone."""
        hypotheses = (self.translation.hypotheses[index],)
        return replace(
            self,
            translation=replace(self.translation, hypotheses=hypotheses),
            target_ids=(self.target_ids[index],),
            traces=(self.traces[index],),
        )


@dataclass(frozen=True)
class Answer:
    """A translation, and what it was made from.

    Attributes:
        prepared: The text, and what was asked for.
        outcome: What the search found.
        translation: The same for callers.
    """

    prepared: PreparedText
    outcome: Outcome
    translation: Translation

    @property
    def traced(self) -> TracedTranslation:
        """The translation with what its hypotheses are explained from; only where attention was traced."""
        decoded = self.outcome.decoded
        assert decoded.attention_keys is not None
        target_ids = tuple(hypothesis.token_ids for hypothesis in decoded.hypotheses)
        source_ids = self.prepared.job.source_ids
        return TracedTranslation(self.translation, source_ids, target_ids, decoded.traces, decoded.attention_keys)
