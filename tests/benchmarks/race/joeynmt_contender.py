"""Joey NMT takes turns with a recurrent model of our sizes; run by the rivals' Python: THREADS AUTOCAST SIZES (JSON).

Its decoder has the output projection that it always has, as wide as the hidden state, so it cannot share our narrower
embedding and has more parameters. Greedy search always returns attention, beam search never.
"""

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from joeynmt.batch import Batch  # type: ignore[import-not-found]  # it is in the rivals' environment, not in ours
from joeynmt.model import build_model  # type: ignore[import-not-found]
from joeynmt.search import search  # type: ignore[import-not-found]
from joeynmt.vocabulary import Vocabulary  # type: ignore[import-not-found]

from tests.benchmarks.race.contender import compete, confine, repeated
from tests.benchmarks.race.work import BATCHES, SOURCE_TOKENS, TARGET_TOKENS, VOCABULARY, Taken, Turn, sentences

_UNK, _PAD, _BOS, _EOS = range(4)


def prepared() -> Callable[[Turn], Taken]:
    """Build the model; a turn has no settings."""
    threads, bfloat16 = int(sys.argv[1]), sys.argv[2] == "bfloat16"
    confine(threads)
    torch.set_num_threads(threads)
    model = built(json.loads(sys.argv[3]))
    rows = torch.tensor([[*ids, _EOS] for ids in sentences(max(BATCHES), 4, VOCABULARY)])
    autocast = {"device_type": "cpu", "enabled": bfloat16, "dtype": torch.bfloat16}

    def translate(turn: Turn) -> list[int]:
        batch = Batch(
            src=rows[: turn.batch],
            src_length=torch.full((turn.batch,), SOURCE_TOKENS),
            src_prompt_mask=None,
            trg=None,
            trg_prompt_mask=None,
            indices=torch.arange(turn.batch),
            device=torch.device("cpu"),
            pad_index=_PAD,
            eos_index=_EOS,
            is_train=False,
        )
        options = {"min_output_length": TARGET_TOKENS, "autocast": autocast}
        output, _, _ = search(model, batch, TARGET_TOKENS, turn.beam_size, beam_alpha=1.0, **options)
        return [int((row != _PAD).sum()) for row in output]

    return repeated(translate)


def built(sizes: dict[str, int]) -> Any:
    """Return a model with the sizes of a bundle's manifest."""
    names = dict(unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>", sep_token=None)
    special = SimpleNamespace(**names, unk_id=_UNK, pad_id=_PAD, bos_id=_BOS, eos_id=_EOS, sep_id=None, lang_tags=[])
    vocabulary = Vocabulary([f"t{number}" for number in range(4, sizes["vocabulary"])], special)
    embedding = {"embedding_dim": sizes["embedding"]}
    both = {"type": "recurrent", "rnn_type": "gru", "embeddings": embedding}
    encoder = {"num_layers": sizes["encoder_layers"], "hidden_size": sizes["hidden"] // 2, "bidirectional": True}
    decoder = {"num_layers": sizes["decoder_layers"], "hidden_size": sizes["hidden"], "attention": "luong"}
    decoder |= {"init_hidden": "bridge", "input_feeding": False}
    config = {"tied_embeddings": True, "encoder": both | encoder, "decoder": both | decoder}
    return build_model(config, vocabulary, vocabulary).eval()


if __name__ == "__main__":
    compete(prepared)
