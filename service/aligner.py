"""From attention to the alignment a person sees: of the attention itself or of the posterior, by one direction or both.

Rows are target and columns are source, in the forward direction; in the reverse one they change places.
"""

from typing import Protocol

import numpy as np
from jaxtyping import Float, Float64

from bundle import alignment
from bundle.manifest import Manifest
from bundle.search import Trace
from bundle.symmetrization import RULES
from bundle.tokenizer import TokenizedText, with_words
from service.errors import (
    BundleRefused,
    InvalidRequest,
    OptionOutOfRange,
    PosteriorMissing,
    ReverseModelMissing,
    SourceEmpty,
    TargetEmpty,
)
from service.translation import Alignment, PreparedText, TracedTranslation, TranslationOptions

ALIGNMENT_METHODS = ("argmax", "threshold", *RULES)  # those of RULES read both directions


class Tracer(Protocol):
    """A translator of the reverse direction.

    Attributes:
        manifest: The bundle's.
    """

    manifest: Manifest

    async def prepare(self, text: str, target: str | None, options: TranslationOptions) -> PreparedText:
        """Return ``target`` as a translation of ``text``, in tokens."""
        ...

    async def trace_prepared(self, prepared: PreparedText, deadline: float | None = None) -> TracedTranslation:
        """Return it with the attention behind it."""
        ...


class Aligner:
    """Draws alignments from what one bundle tells, and for methods that read both directions, from its reverse."""

    def __init__(self, manifest: Manifest, reverse: Tracer | None = None) -> None:
        """Keep what alignments are drawn with.

        Args:
            manifest: The bundle's.
            reverse: A model of the reverse direction.
        """
        self._reverse = reverse
        self._manifest = manifest

    def check(self, options: TranslationOptions) -> None:
        """Accept a way of alignment that ``align`` can go.

        Raises:
            OptionOutOfRange: The threshold is out of range, or the method has none.
            ReverseModelMissing: The method reads both directions, and there is no reverse model.
            PosteriorMissing: The posterior is asked for by name, and a bundle does not give it.
        """
        method, _ = self._way(options)
        threshold, name = options.alignment_threshold, "alignment_options.threshold"
        if threshold is not None and method != "threshold":
            message = f"threshold is set, and the method {method!r} has none; leave it out"
            raise OptionOutOfRange(name, message)
        if threshold is not None and not 0 < threshold <= 1:
            raise OptionOutOfRange(name, f"threshold is {threshold}; allowed is above 0 to 1")
        if method in RULES and self._reverse is None:
            raise ReverseModelMissing(
                f"the method {method!r} reads both directions, and no model of the reverse direction "
                "is loaded. Use argmax or threshold, or start the service with INTERLINEAR_REVERSE_BUNDLE."
            )
        if options.alignment_evidence == "posterior" and not self._gives_posterior(method):
            raise PosteriorMissing(
                "the bundle, or that of the reverse direction, was exported without emission scores, so it gives no "
                "posterior. Use the evidence of attention, or export it again."
            )

    async def align(
        self,
        trace: Trace,
        target: TokenizedText,
        source: TokenizedText,
        options: TranslationOptions,
        deadline: float | None,
    ) -> Alignment:
        """Return the alignment that ``trace`` shows, in the way that ``options`` say.

        Raises:
            ServiceError: As for the translation, from the reverse model.
        """
        assert trace.attention_weights is not None
        method, evidence = self._way(options)
        weights = alignment.shifted(trace.attention_weights, self._manifest.alignment_shift)
        posterior = posterior_matrix = reverse = None
        if trace.emission_scores is None:
            matrix = chosen = alignment.word_matrix(weights, target, source)
        else:
            posterior = alignment.posterior(trace.attention_weights, trace.emission_scores)
            matrix, posterior_matrix = alignment.word_matrices([weights, posterior], target, source)
            chosen = matrix
        if evidence == "posterior":
            assert posterior_matrix is not None
            chosen = posterior_matrix
        if method in RULES:
            reverse = await self._reverse_matrix(target, source, evidence, deadline)
            links = alignment.links_both_ways(chosen, reverse, method)
        else:
            threshold = (options.alignment_threshold or alignment.CONFIDENT) if method == "threshold" else None
            links = alignment.links(chosen, len(target.words), threshold)
        unaligned = alignment.unaligned(links, len(target.words), len(source.words))
        return Alignment(
            word_matrix=matrix.astype(np.float32),
            piece_weights=weights,
            links=links,
            shift=self._manifest.alignment_shift,
            evidence=evidence,
            method=method,
            unaligned_target=tuple(unaligned[0]),
            unaligned_source=tuple(unaligned[1]),
            reverse_word_matrix=_float32(reverse),
            posterior_word_matrix=_float32(posterior_matrix),
            posterior_piece_weights=posterior,
        )

    def _way(self, options: TranslationOptions) -> tuple[str, str]:
        """Return the method and the evidence that links are drawn by and from, defaults filled in."""
        method, evidence = options.alignment_method, options.alignment_evidence
        if evidence is None:
            evidence = "posterior" if self._gives_posterior(method) else "attention"
        return method or ("threshold" if evidence == "posterior" else "argmax"), evidence

    def _gives_posterior(self, method: str | None) -> bool:
        """Return whether every model that ``method`` reads tells what the posterior is made of."""
        forward = has_posterior(self._manifest)
        return forward and (
            method not in RULES or (self._reverse is not None and has_posterior(self._reverse.manifest))
        )

    async def _reverse_matrix(
        self, target: TokenizedText, source: TokenizedText, evidence: str, deadline: float | None
    ) -> Float64[np.ndarray, "source_word target_word"]:
        """Return the word weights of the reverse model, which is made to translate ``target`` into ``source``.

        The reverse model cuts the texts into pieces of its own; they are gathered under the words of ours.
        """
        assert self._reverse is not None
        nothing: Float64[np.ndarray, "source_word target_word"] = np.zeros(
            (len(source.words) + 1, len(target.words) + 1)
        )
        nothing[:, -1] = 1.0
        if not target.words:
            return nothing
        try:
            prepared = await self._reverse.prepare(target.text, source.text, TranslationOptions())
        except (SourceEmpty, TargetEmpty):  # it removes all characters of one of the texts
            return nothing
        except InvalidRequest as error:
            message = f"the reverse model cannot align this pair; choose argmax or threshold. It says: {error}"
            raise OptionOutOfRange("alignment_options.method", message) from error
        traced = await self._reverse.trace_prepared(prepared.following(), deadline)
        answer = traced.translation.hypotheses[0]
        assert answer.alignment is not None
        weights = answer.alignment.piece_weights
        if evidence == "posterior":
            assert answer.alignment.posterior_piece_weights is not None
            weights = answer.alignment.posterior_piece_weights
        return alignment.word_matrix(
            weights, _cut_as(answer.target, source), _cut_as(traced.translation.source, target)
        )


def has_posterior(manifest: Manifest) -> bool:
    """Return whether a bundle tells what the posterior is made of."""
    return any(tensor.name == "emission_scores" for tensor in manifest.graphs["decoder_step"].outputs)


def check_reverse(manifest: Manifest, reverse: Manifest) -> None:
    """Accept ``reverse`` as the reverse direction of ``manifest``.

    Raises:
        BundleRefused: It translates between other languages, has no attention, or has the same name.
    """
    faults = []
    found, wanted = (
        (reverse.source_language, reverse.target_language),
        (manifest.target_language, manifest.source_language),
    )
    if found != wanted:
        faults.append(f"it translates {found[0]} to {found[1]}; the reverse translates {wanted[0]} to {wanted[1]}")
    if reverse.score_kind == "none":
        faults.append(f"its architecture, {reverse.architecture}, has no attention")
    if reverse.bundle_id == manifest.bundle_id:
        faults.append(f"both bundles are called {manifest.bundle_id!r}; metrics could not tell them apart")
    if faults:
        raise BundleRefused(
            f"INTERLINEAR_REVERSE_BUNDLE is no reverse direction of {manifest.bundle_id!r}:\n  " + "\n  ".join(faults)
        )


def _cut_as(text: TokenizedText, other: TokenizedText) -> TokenizedText:
    """Return ``text`` with the words of ``other``, which is the same text in other pieces."""
    return with_words(text, [(word.span.start_code_point, word.span.end_code_point) for word in other.words])


def _float32(matrix: Float64[np.ndarray, "rows columns"] | None) -> Float[np.ndarray, "rows columns"] | None:
    return None if matrix is None else matrix.astype(np.float32)
