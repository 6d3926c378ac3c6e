import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.fitting import ComponentSums, TableSizes, collect, fit
from exporters.sampling import TrainingSample, subset
from tests.exporters.conftest import Exported
from tests.exporters.text import random_corpus
from training.evaluation import SPECIAL_IDS
from training.models.interface import TranslationModel

SIZES = TableSizes(source_positions=20, target_positions=20, vocabulary=40, key=16, decoder_token_offset=1)
CORPUS = random_corpus(40, 60, seed=1, longest=15)


def digest(sums: ComponentSums) -> str:
    return sums.tables("t", "text", minimum_count=1).digest


@given(st.lists(st.integers(0, 3), min_size=60, max_size=60))
@settings(max_examples=8, deadline=None)
def test_any_sharding_of_the_text_fits_the_same_tables(narrow: Exported, shard_of: list[int]) -> None:
    whole = collect(narrow.int8, CORPUS, SIZES)
    sums = ComponentSums.empty(SIZES)
    for shard in range(4):
        rows = np.flatnonzero(np.array(shard_of) == shard)
        sums = sums.merged(collect(narrow.int8, subset(CORPUS, rows), SIZES))
    assert sums.sentences == 60
    assert digest(sums) == digest(whole)


@pytest.mark.slow
def test_two_processes_fit_the_same_tables_as_one(narrow: Exported) -> None:
    sample = TrainingSample(random_corpus(40, 11_000, seed=2, longest=4), "random")
    told: list[str] = []
    sums = [fit(narrow.int8, sample, SIZES, processes, told.append) for processes in (1, 2)]
    assert digest(sums[0]) == digest(sums[1])
    assert told[-1].endswith("11,000 of 11,000 sentences")


def twin_states(model: TranslationModel, pair: int) -> tuple[list[int], np.ndarray, list[int], np.ndarray]:
    """Return source ids, keys, conditioning tokens and queries of one pair, by torch, one sentence at a time."""
    corpus, eos = CORPUS, SPECIAL_IDS.eos
    source = [*corpus.source_ids[corpus.source_offsets[pair] : corpus.source_offsets[pair + 1]].tolist(), eos]
    target = corpus.target_ids[corpus.target_offsets[pair] : corpus.target_offsets[pair + 1]].tolist()
    read = [SPECIAL_IDS.bos, *target]
    with torch.no_grad():
        encoded = model.encode(torch.tensor([source]), torch.tensor([len(source)]))
        state = {name: tensor[:, None] for name, tensor in encoded.initial_state.items()}
        queries = []
        for token_id in read:
            stepped = model.step(torch.tensor([[token_id]]), state, encoded)
            state = stepped.state
            assert stepped.attention_query is not None
            queries.append(stepped.attention_query[0, 0].numpy())
    return source, encoded.encoder_side["attention_keys"][0].numpy(), read, np.stack(queries)


def test_the_tables_are_the_means_that_a_loop_over_sentences_finds(narrow: Exported) -> None:
    tables = collect(narrow.float32, CORPUS, SIZES).tables("t", "text", minimum_count=1)
    found = [twin_states(narrow.trained, pair) for pair in range(len(CORPUS))]
    for side, ids, states in ((tables.encoder, 0, 1), (tables.decoder, 2, 3)):
        at = {
            position: np.mean([s[states][position] for s in found if len(s[ids]) > position], axis=0)
            for position in range(16)
        }
        for position, mean in at.items():
            np.testing.assert_allclose(side.temporal[position], mean, atol=5e-3, rtol=1e-2)
            assert side.temporal_counts[position] == sum(len(sentence[ids]) > position for sentence in found)
        for token_id in (SPECIAL_IDS.eos, SPECIAL_IDS.bos, 7, 23):
            rest = [
                sentence[states][position] - at[position]
                for sentence in found
                for position, token in enumerate(sentence[ids])
                if token == token_id
            ]
            assert side.input_counts[token_id] == len(rest)
            if rest:
                np.testing.assert_allclose(side.input_driven[token_id], np.mean(rest, axis=0), atol=2e-2)
