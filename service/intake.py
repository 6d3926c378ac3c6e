"""The texts of a request in tokens, within the bundle's limits; or why they cannot be taken."""

from bundle.errors import InvalidText
from bundle.manifest import Limits
from bundle.tokenizer import TokenizedText, Tokenizer
from service.errors import InvalidRequest, SourceEmpty, SourceTooLong, TargetEmpty, TargetTooLong, TextInvalid

# A part of a document may have so many tokens that its translation is expected to fill this much of what it may have:
# of Europarl's long sentences, none of 96 below that was cut off, and 7 of 39 above (embedded bundle, beam 2).
_ROOM = 0.8
_LENGTHENING = 1.15  # target tokens a source token, expected where the bundle does not say

_MOST_CHARACTERS = 16  # a token; with more, a text is refused before time is spent on tokenizing it


class Intake:
    """Tokenizes the texts of requests.

    Every method raises ``TextInvalid`` where a text is no text, and ``SourceTooLong`` or ``TargetTooLong`` where it has
    more tokens than the bundle allows.
    """

    def __init__(self, tokenizer: Tokenizer, limits: Limits, length_ratio: float | None = None) -> None:
        """Prepare to tokenize.

        Args:
            tokenizer: The bundle's.
            limits: The bundle's.
            length_ratio: Target tokens over source tokens, as is normal for the bundle; None where it does not say.
        """
        self._tokenizer = tokenizer
        self._limits = limits
        room = _ROOM * limits.max_target_tokens / (length_ratio or _LENGTHENING)
        self._longest_part = max(1, int(min(limits.max_source_tokens, room)))

    def source(self, text: str) -> TokenizedText:
        """Return a text to translate.

        Raises:
            SourceEmpty: It has no words.
        """
        source = self._tokenized(text, "text", self._limits.max_source_tokens, SourceTooLong)
        if source.blank:
            raise SourceEmpty("text", "text has nothing to translate: it is empty, or holds only spaces")
        return source

    def fits(self, text: str) -> bool:
        """Return whether ``text`` is short enough for a part of a document; what is no text at all is not too long.

        It is no longer than a source may be, and so short that its translation is not likely to be cut off.
        """
        limit = self._longest_part
        try:
            return len(text) <= _MOST_CHARACTERS * limit and len(self._tokenizer.encode_ids(text)) < limit
        except InvalidText:
            return True

    def given_target(self, text: str) -> TokenizedText:
        """Return a translation that the caller gives.

        Raises:
            TargetEmpty: It has no words.
        """
        target = self.target(text, "target")
        if target.blank:
            raise TargetEmpty("target", "target has nothing to explain: it is empty, or holds only spaces")
        return target

    def target(self, text: str, field: str) -> TokenizedText:
        """Return ``text`` of the target's language, which came in the field ``field``."""
        return self._tokenized(text, field, self._limits.max_target_tokens, TargetTooLong)

    def prefix(self, text: str) -> tuple[int, ...]:
        """Return what a translation is to begin with.

        Raises:
            TextInvalid: It has pieces outside the vocabulary too.
        """
        if not text:
            return ()
        name = "options.forced_prefix"
        prefix = self.target(text, name)
        if unknown := sum(map(self._tokenizer.is_unknown, prefix.token_ids)):
            message = f"{name} has {unknown} pieces outside the model's vocabulary; a translation cannot hold them"
            raise TextInvalid(name, message)
        return tuple(prefix.token_ids)

    def _tokenized(self, text: str, name: str, limit: int, too_long: type[InvalidRequest]) -> TokenizedText:
        advice = "Split it into sentences and send them one by one."
        if len(text) > _MOST_CHARACTERS * limit:
            raise too_long(name, f"{name} has {len(text)} characters, more than {limit} tokens can hold. {advice}")
        try:
            tokenized = self._tokenizer.encode(text)
        except InvalidText as error:
            raise TextInvalid(name, f"{name} is not text: {error}") from error
        length = len(tokenized.token_ids) + 1
        if length > limit:
            message = f"{name} has {length} tokens, end of sentence included; this bundle allows {limit}. {advice}"
            raise too_long(name, message)
        return tokenized
