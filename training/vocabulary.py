"""Trains the joint SentencePiece vocabulary, with the text normalization inside the model.

The rules live in the tokenizer file, so that the trainer and the service cannot normalize differently.
"""

import io
import sys
import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from training.config import VocabularyConfig
from training.errors import TrainingError

PAD_ID, UNK_ID, BOS_ID, EOS_ID = range(4)

# Written many ways on keyboards and in corpora, read one way by the model.
_APOSTROPHES = "\u2018\u2019\u201b\u02bc\u02b9\u2032\u00b4\uff07"
# Invisible: soft hyphen, zero-width space and joiners, direction marks, word joiner, byte order mark.
_REMOVED = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_SPACES = "\t\n\r\v\f\u0085\u2028\u2029"
_HANGUL = range(0xAC00, 0xD7A4)  # 11,172 composed syllables: their sequences would double the table for nothing


def normalization_rules() -> str:
    """Return the normalization table in SentencePiece's TSV form: NFKC, then this project's own rules.

    Typographic apostrophes become ``'``; U+00A0, U+202F (French spaces before ``? ! ; :``) and every other
    space become a space; soft hyphens and zero-width characters vanish.
    """
    rules: dict[str, str] = {}
    for code_point in range(sys.maxunicode + 1):
        if 0xD800 <= code_point <= 0xDFFF:
            continue
        character = chr(code_point)
        normal = unicodedata.normalize("NFKC", character)
        if normal != character:
            rules[character] = normal
        elif code_point not in _HANGUL:
            for form in (unicodedata.normalize("NFD", character), _one_step_decomposition(character)):
                if len(form) > 1:
                    rules[form] = character
    rules |= {character: "'" for character in _APOSTROPHES}
    rules |= {character: " " for character in _SPACES}
    rules |= {character: "" for character in _REMOVED}
    return "".join(f"{_hexadecimal(given)}\t{_hexadecimal(normal)}\n" for given, normal in sorted(rules.items()))


def train_vocabulary(sentences: Iterable[str], config: VocabularyConfig, seed: int) -> bytes:
    """Return a serialized SentencePiece BPE model trained on ``sentences`` (both languages, training side only).

    Raises:
        TrainingError: The text holds too few distinct pieces for ``config.size``.
    """
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "normalization.tsv"
        rules.write_text(normalization_rules(), encoding="utf-8")
        sentencepiece.set_random_generator_seed(seed)
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=model,
                model_type="bpe",
                vocab_size=config.size,
                character_coverage=config.character_coverage,
                normalization_rule_tsv=str(rules),
                split_digits=True,
                input_sentence_size=config.sentences,
                shuffle_input_sentence=True,
                pad_id=PAD_ID,
                unk_id=UNK_ID,
                bos_id=BOS_ID,
                eos_id=EOS_ID,
                num_threads=1,
                minloglevel=1,
            )
        except RuntimeError as error:
            raise TrainingError(
                f"no vocabulary of {config.size} pieces can be made from this text: {error}. "
                "Lower [vocabulary] size or give more text."
            ) from error
    return _without_paths(model.getvalue())


def _without_paths(serialized: bytes) -> bytes:
    """Return the model without the names of the files it was made from: the same text gives the same bytes anywhere."""
    model = sentencepiece_model_pb2.ModelProto.FromString(serialized)  # type: ignore[attr-defined]  # generated, no stub
    model.normalizer_spec.ClearField("normalization_rule_tsv")
    model.trainer_spec.ClearField("input")
    model.trainer_spec.ClearField("model_prefix")
    return bytes(model.SerializeToString(deterministic=True))


def _one_step_decomposition(character: str) -> str:
    fields = unicodedata.decomposition(character).split()
    return "" if not fields or fields[0].startswith("<") else "".join(chr(int(field, 16)) for field in fields)


def _hexadecimal(text: str) -> str:
    return " ".join(f"{ord(character):X}" for character in text)
