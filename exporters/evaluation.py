"""Translates test sets with the graphs of a bundle, and says how far two precisions of one model lie apart in BLEU."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sacrebleu
from jaxtyping import Int

from bundle.tokenizer import Tokenizer
from exporters.figures import BEAM_SIZE
from exporters.runtime import OnnxModel
from exporters.sampling import Pairs
from training.evaluation import Scores, score
from training.translation import Ids, Translator, source_ids

INTERVAL = "95 %, paired bootstrap over sentences, 1000 resamples"
_RESAMPLES = 1_000
_SEED = 12_345  # sacrebleu's own
_BATCH_SENTENCES = 64


@dataclass(frozen=True)
class Evaluation:
    """A test set as one precision of a model translates it, by beam 4.

    Attributes:
        model: The graphs that translated.
        sources: As ids, end of sentence included.
        targets: The references as ids, end of sentence included.
        references: As text.
        translations: As text.
        scores: Of all translations against the references.
    """

    model: OnnxModel
    sources: Sequence[Ids]
    targets: Sequence[Ids]
    references: Sequence[str]
    translations: Sequence[str]
    scores: Scores


def evaluate(model: OnnxModel, tokenizer: Tokenizer, max_target_tokens: int, pairs: Pairs) -> Evaluation:
    """Return the translations of ``pairs`` by ``model``, with their scores."""
    translator = Translator(model, model.special_ids, max_target_tokens)
    references = [target for _, target in pairs]
    sources, targets = source_ids(tokenizer, [source for source, _ in pairs]), source_ids(tokenizer, references)
    results = translator.translate(sources, BEAM_SIZE, _BATCH_SENTENCES)
    translations = [tokenizer.decode(result.hypotheses[0].token_ids) for result in results]
    return Evaluation(model, sources, targets, references, translations, score(translations, references))


def bleu_loss(exact: Evaluation, rounded: Evaluation) -> dict[str, float]:
    """Return how much less BLEU ``rounded`` has than ``exact``, and the ``INTERVAL`` from ``low`` to ``high``.

    Each resample draws the same sentences of both, as sacrebleu's paired bootstrap does; that one gives an interval for
    each system and none for their difference.
    """
    counts = [_counts(evaluation) for evaluation in (exact, rounded)]
    generator, sentences = np.random.default_rng(_SEED), len(exact.references)
    losses = []
    for _ in range(_RESAMPLES):
        drawn = np.bincount(generator.integers(0, sentences, sentences), minlength=sentences)
        of_exact, of_rounded = (_bleu(drawn @ of_one) for of_one in counts)
        losses.append(of_exact - of_rounded)
    low, high = np.quantile(losses, (0.025, 0.975))
    return {"value": exact.scores.bleu - rounded.scores.bleu, "low": float(low), "high": float(high)}


def _counts(evaluation: Evaluation) -> Int[np.ndarray, "sentence 10"]:
    """Return what BLEU is made of: matching n-grams by order, all n-grams by order, and both lengths."""
    metric = sacrebleu.BLEU(effective_order=True)  # said of the score of one sentence, which is not asked for
    scores = map(metric.sentence_score, evaluation.translations, ([reference] for reference in evaluation.references))
    return np.array([[*found.counts, *found.totals, found.sys_len, found.ref_len] for found in scores])


def _bleu(counts: Int[np.ndarray, "10"]) -> float:
    *ngrams, translated, reference = counts.tolist()
    return sacrebleu.BLEU.compute_bleu(ngrams[:4], ngrams[4:], translated, reference, smooth_method="exp").score
