from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training import guidance
from training.checkpoint import load_checkpoint
from training.config import GuidanceConfig
from training.corpus import Links, TokenizedCorpus, assemble
from training.errors import AlignerFailed
from training.guidance import combined, guidance_loss, with_links
from training.loop import train
from training.progress import Reporter

LINK = st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 4))  # pair, target, source


def number(links: set[tuple[int, int, int]]) -> np.ndarray:
    return np.array(sorted((pair << 16 | target) << 16 | source for pair, target, source in links), np.int64)


@given(st.sets(LINK), st.sets(LINK))
def test_links_are_those_of_both_directions_and_for_tokens_without_those_of_the_second(
    forward: set[tuple[int, int, int]], reverse: set[tuple[int, int, int]]
) -> None:
    both = forward & reverse
    taken = {link[:2] for link in both}
    expected = both | {link for link in reverse if link[:2] not in taken}
    assert combined(number(forward), number(reverse)).tolist() == number(expected).tolist()


def test_the_loss_is_the_cross_entropy_of_attention_from_evenly_shared_links() -> None:
    weights = torch.rand(2, 3, 4).softmax(-1)
    links = torch.tensor([[0, 1, 2], [1, 0, 0], [1, 0, 3]])
    one = -torch.log(weights[0, 1, 2])
    other = -(torch.log(weights[1, 0, 0]) + torch.log(weights[1, 0, 3])) / 2
    torch.testing.assert_close(guidance_loss(weights, links), (one + other) / 2)


def test_without_links_there_is_nothing_to_teach() -> None:
    assert guidance_loss(torch.rand(1, 2, 3), torch.zeros(0, 3, dtype=torch.long)) == 0


def test_a_weight_of_zero_costs_much_and_not_infinity() -> None:
    weights = torch.zeros(1, 1, 2, requires_grad=True)
    loss = guidance_loss(weights, torch.tensor([[0, 0, 1]]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert 50 < loss < 100 and weights.grad is not None and torch.isfinite(weights.grad).all()


def test_a_batch_holds_the_links_of_its_own_pairs_by_row() -> None:
    links = Links(np.array([0, 1, 0]), np.array([1, 0, 0]), np.array([0, 2, 2, 3]))
    ids, offsets = np.arange(4, 10), np.array([0, 2, 4, 6])
    corpus = TokenizedCorpus(ids, offsets, ids, offsets, 1.0, links)
    assert assemble([corpus], [(0, 2), (0, 1), (0, 0)]).links.tolist() == [[0, 0, 0], [2, 0, 1], [2, 1, 0]]


def test_a_run_that_wants_guidance_says_what_is_missing(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    config_file.write_text(config_file.read_text() + "[guidance]\n")
    with pytest.raises(AlignerFailed, match=r"eflomal.*interlinear\[guidance\].*remove \[guidance\]"):
        train(config_file, tmp_path / "run")


def test_an_aligner_that_fails_is_told_in_its_own_words() -> None:
    with pytest.raises(AlignerFailed, match="ended with 3: no such tongue"):
        guidance._run(["sh", "-c", "echo no such tongue >&2; exit 3"])


def test_guidance_turns_attention_to_the_links(config_file: Path, tmp_path: Path) -> None:
    """The links are written where the aligner's would be kept, so this needs no aligner: digit i to digit n - i."""
    text = config_file.read_text().replace("steps = 12", "steps = 120").replace("decay_steps = 4", "decay_steps = 40")
    text = text.replace("validate_every = 6", "validate_every = 120")
    surprise = {}
    for weight in (None, 1.0):
        folder = tmp_path / str(weight)
        config_file.write_text(text + (f"[guidance]\nweight = {weight}\n" if weight else ""))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(guidance, "_align", _mirrored)
            train(config_file, folder)
        surprise[weight] = _surprise(folder / "last")
    assert surprise[1.0] < 0.5 * surprise[None]


def test_links_are_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, offsets = np.arange(4, 10, dtype=np.int32), np.array([0, 2, 4, 6])
    corpora = [TokenizedCorpus(ids, offsets, ids, offsets, 1.0), TokenizedCorpus(ids, offsets, ids, offsets, 1.0)]
    reporter = Reporter(tmp_path, speaks=False)
    monkeypatch.setattr(guidance, "_align", _mirrored)
    first = with_links(corpora, GuidanceConfig(pairs=2), tmp_path, reporter)
    monkeypatch.delattr(guidance, "_align")
    again = with_links(corpora, GuidanceConfig(pairs=2), tmp_path, reporter)
    for corpus, other in zip(first, again, strict=True):
        for links in (assemble([each], [(0, 1), (0, 2)]).links for each in (corpus, other)):
            assert links.tolist() == [[0, 0, 1], [0, 1, 0]]  # the third pair is beyond the two that are aligned


@pytest.mark.skipif(guidance._found_aligner() is None, reason="eflomal (extra guidance) takes a C compiler to install")
def test_the_aligner_finds_words_that_always_go_together() -> None:
    random = np.random.default_rng(1)
    sentences = [random.integers(10, 30, 6).astype(np.int32) for _ in range(400)]
    offsets = np.arange(0, 2401, 6)
    source = np.concatenate(sentences)
    target = np.concatenate([sentence[::-1] + 100 for sentence in sentences])
    corpus = TokenizedCorpus(source, offsets, target, offsets, 1.0)
    links = guidance._align([corpus], [400])
    right = sum(source[6 * pair + s] + 100 == target[6 * pair + t] for pair, t, s in links.tolist())
    assert right > 0.9 * len(links) and len(links) > 0.9 * len(target)


def _mirrored(corpora: list[TokenizedCorpus], pairs: list[int]) -> np.ndarray:
    lengths = [np.diff(corpus.target_offsets)[:count] for corpus, count in zip(corpora, pairs, strict=True)]
    return np.array(
        [
            (pair, position, length - 1 - position)
            for pair, length in enumerate(np.concatenate(lengths).tolist())
            for position in range(length)
        ]
    )


@torch.no_grad()
def _surprise(checkpoint: Path) -> float:
    """Return the guidance loss of the checkpoint on ten strings and their mirror images."""
    loaded = load_checkpoint(checkpoint)
    source = torch.randint(5, 12, (10, 8))
    target = torch.cat([torch.full((10, 1), 2), source.flip(1)], dim=1)
    weights = loaded.model.eval()(source, torch.full((10,), 8), target).attention_weights
    rows = torch.tensor([(row, position, 7 - position) for row in range(10) for position in range(8)])
    return float(guidance_loss(weights, rows))
