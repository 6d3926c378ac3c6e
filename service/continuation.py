"""What might follow the beginning of a translation, kept in tokens: the pieces of the translation up to a place."""

from dataclasses import dataclass, replace

from bundle.step import MAX_BEAM_SIZE
from bundle.tokenizer import TokenizedText
from service.errors import OptionOutOfRange
from service.translation import PreparedText, TracedTranslation, TranslationOptions
from service.translator import Translator


@dataclass(frozen=True)
class Place:
    """A place in a translation.

    Attributes:
        prepared: The source, and the job of scoring the translation.
        target: The translation.
        words: Words before the place.
    """

    prepared: PreparedText
    target: TokenizedText
    words: int = 0

    @property
    def start(self) -> int:
        """Pieces before the place."""
        words = self.target.words
        return words[self.words].piece_indices[0] if self.words < len(words) else len(self.target.pieces)

    @property
    def prefix(self) -> tuple[int, ...]:
        """Those pieces in tokens."""
        return self.prepared.job.target_ids[: self.start]

    def before(self, word: int, last: int) -> "Place":
        """Return the place before ``word`` of the same translation; ``last`` is the last that may be asked for.

        Raises:
            OptionOutOfRange: It lies outside of 0 to ``last``.
        """
        if not 0 <= word <= last:
            count = len(self.target.words)
            message = f"target_word is {word}; the translation has {count} words, so allowed is 0 to {last}"
            raise OptionOutOfRange("target_word", message)
        return replace(self, words=word)


class Continuation:
    """Goes on from the beginning of a translation with the model of one bundle.

    Every method raises what ``Translator.trace_prepared`` does, and ``TargetTooLong`` where nothing could follow.
    """

    def __init__(self, translator: Translator) -> None:
        self._translator = translator

    async def place(self, text: str, target: str | None, options: TranslationOptions, deadline: float | None) -> Place:
        """Return the beginning of ``target``, or of our own translation of ``text``.

        Raises:
            InvalidRequest, AttentionMissing: As for ``Translator.prepare``.
        """
        prepared = await self._translator.prepare(text, target, options)
        if prepared.target is not None:
            return Place(prepared, prepared.target)
        own = await self._translator.trace_prepared(prepared, deadline)
        return Place(prepared.following().scoring(own.target_ids[0]), own.translation.hypotheses[0].target)

    async def best(
        self, prepared: PreparedText, prefix: tuple[int, ...], field: str, deadline: float | None
    ) -> TracedTranslation:
        """Return the best translation that begins with ``prefix``; ``field`` is at fault where there is none."""
        return await self._translator.trace_prepared(self._translator.begun(prepared, prefix, field), deadline)

    async def likeliest(
        self, prepared: PreparedText, prefix: tuple[int, ...], field: str, deadline: float | None
    ) -> list[int]:
        """Return the tokens that most probably follow ``prefix``, best first: as many as a beam may be wide."""
        begun = self._translator.begun(prepared, prefix, field)
        one_step = replace(
            begun.job.options,
            max_target_tokens=len(prefix) + 1,
            beam_size=MAX_BEAM_SIZE,
            n_best=MAX_BEAM_SIZE,
            length_penalty=0.0,
        )
        job = replace(begun.job, options=one_step)
        traced = await self._translator.trace_prepared(replace(begun, job=job), deadline)
        return [ids[-1] for ids in traced.target_ids]

    async def best_apart(
        self, prepared: PreparedText, prefix: tuple[int, ...], field: str, deadline: float | None
    ) -> tuple[int, ...]:
        """Return the tokens of the best translation that begins with ``prefix`` and does not write on at its last word.

        Where the best of all does, the likeliest piece that does not says how the rest begins.
        """
        best = await self.best(prepared, prefix, field, deadline)
        if is_cut(best.translation.hypotheses[0].target, len(prefix)):
            return best.target_ids[0]
        prepared = prepared.following()
        eos, decode = self._translator.manifest.special_ids.eos, self._translator.tokenizer.decode_with_spans
        for token_id in await self.likeliest(prepared, prefix, field, deadline):
            longer = (*prefix, token_id)
            if token_id != eos and is_cut(decode(longer), len(prefix)):
                best = await self.best(prepared, longer, field, deadline)
                if is_cut(best.translation.hypotheses[0].target, len(prefix)):
                    return best.target_ids[0]
        return (*prefix, eos)


def is_cut(target: TokenizedText, piece: int) -> bool:
    """Return whether no word has pieces both before ``piece`` and from it on."""
    return not any(word.piece_indices[0] < piece <= word.piece_indices[-1] for word in target.words)
