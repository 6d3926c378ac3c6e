"""CTranslate2 takes turns; run by the rivals' Python: FOLDER COMPUTE_TYPE INTER_THREADS INTRA_THREADS."""

import sys
from collections.abc import Callable

import ctranslate2  # type: ignore[import-not-found]  # it is in the rivals' environment, not in ours

from tests.benchmarks.race.contender import compete, confine, repeated
from tests.benchmarks.race.work import BATCHES, TARGET_TOKENS, VOCABULARY, Taken, Turn, sentences


def prepared() -> Callable[[Turn], Taken]:
    """Load the model; a turn's settings are ``max_batch_size`` and ``batch_type`` of ``translate_batch``."""
    folder, compute_type, inter, intra = sys.argv[1:]
    confine(int(inter) * int(intra))
    translator = ctranslate2.Translator(
        folder, compute_type=compute_type, inter_threads=int(inter), intra_threads=int(intra)
    )
    sources = [[f"t{number}" for number in ids] + ["</s>"] for ids in sentences(max(BATCHES), 3, VOCABULARY)]

    def translate(turn: Turn) -> list[int]:
        results = translator.translate_batch(
            sources[: turn.batch],
            beam_size=turn.beam_size,
            min_decoding_length=TARGET_TOKENS,
            max_decoding_length=TARGET_TOKENS,
            return_attention=turn.alignment,
            **turn.settings,
        )
        return [len(result.hypotheses[0]) for result in results]

    return repeated(translate)


if __name__ == "__main__":
    compete(prepared)
