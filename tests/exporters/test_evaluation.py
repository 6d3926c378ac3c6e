import random
from collections.abc import Sequence

import pytest
import sacrebleu
from sacrebleu.significance import PairedTest

from exporters.evaluation import Evaluation, bleu_loss
from tests.exporters.conftest import Exported
from training.evaluation import score

WORDS = "the a cat dog sat ran on under mat tree big small red blue".split()


def sentences(seed: int, count: int = 200) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(4, 12))) for _ in range(count)]


def damaged(texts: list[str], share: float, seed: int) -> list[str]:
    """Return texts with a ``share`` of the words swapped for others."""
    generator = random.Random(seed)
    return [" ".join(generator.choice(WORDS) if generator.random() < share else w for w in t.split()) for t in texts]


def scored(narrow: Exported, translations: list[str], references: list[str]) -> Evaluation:
    return Evaluation(narrow.float32, [], [], references, translations, score(translations, references))


def test_a_loss_lies_within_its_interval_and_nothing_is_lost_to_oneself(narrow: Exported) -> None:
    references = sentences(1)
    good, bad = (scored(narrow, damaged(references, share, seed=2), references) for share in (0.2, 0.3))
    loss = bleu_loss(good, bad)
    assert loss["value"] == good.scores.bleu - bad.scores.bleu
    assert 0 < loss["low"] < loss["value"] < loss["high"]
    assert bleu_loss(good, good) == {"value": 0, "low": 0, "high": 0}
    back = bleu_loss(bad, good)
    assert (back["low"], back["high"]) == pytest.approx((-loss["high"], -loss["low"]))


def test_an_interval_holds_zero_where_sacrebleu_finds_no_difference_and_else_does_not(narrow: Exported) -> None:
    references = sentences(3)
    first = damaged(references, 0.3, seed=4)
    for second, differs in ((damaged(references, 0.3, seed=5), False), (damaged(references, 0.4, seed=6), True)):
        systems: list[tuple[str, Sequence[str]]] = [("first", first), ("second", second)]
        _, found = PairedTest(systems, {"BLEU": sacrebleu.BLEU()}, [references], test_type="bs")()
        result = found["BLEU"][1]
        assert not isinstance(result, str) and result.p_value is not None
        loss = bleu_loss(scored(narrow, first, references), scored(narrow, second, references))
        assert (result.p_value < 0.05) == (loss["low"] > 0 or loss["high"] < 0) == differs


def test_pairing_makes_the_interval_of_two_alike_systems_narrow(narrow: Exported) -> None:
    references = sentences(7)
    first = damaged(references, 0.3, seed=8)
    second = [*damaged(first[:10], 0.2, seed=9), *first[10:]]
    loss = bleu_loss(scored(narrow, first, references), scored(narrow, second, references))
    _, found = PairedTest(
        [("first", first), ("second", second)], {"BLEU": sacrebleu.BLEU()}, [references], test_type="bs"
    )()
    of_one = found["BLEU"][0]
    assert not isinstance(of_one, str) and of_one.ci is not None
    assert 0 < loss["high"] - loss["low"] < of_one.ci
