"""One translation told while it grows: text that no later step will change, then the translation itself."""

import asyncio
from collections.abc import AsyncGenerator

from bundle.tokenizer import Tokenizer
from service.translation import Translation, TranslationOptions
from service.translator import Translator

_UNDECODED = "\ufffd"  # what a character reads as while some of its bytes are missing


class GrowingText:
    """The text of a translation whose tokens become known from left to right.

    The text of the first tokens is not always how the text of all of them begins: white space at an end is dropped, and
    a character may be several tokens. What may still change is held back.

    Attributes:
        told: What has been told so far.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.told = ""
        self._tokenizer = tokenizer

    def grow(self, token_ids: tuple[int, ...]) -> str:
        """Return what there is to add to ``told``, now that the tokens begin with ``token_ids``."""
        known, _, _ = self._tokenizer.decode(token_ids).partition(_UNDECODED)
        return self.finish(known.rstrip())

    def finish(self, text: str) -> str:
        """Return what there is to add to ``told``, now that it is ``text``."""
        assert text.startswith(self.told)
        added = text[len(self.told) :]
        self.told = text
        return added


async def told(
    translator: Translator, text: str, options: TranslationOptions, deadline: float | None
) -> AsyncGenerator[str | Translation, None]:
    """Yield what the best translation of ``text`` gains, as soon as it gains it, and at last the translation.

    The parts together are the text of the best hypothesis. Closed early, it stops the search.

    Raises:
        ServiceError: As for ``Translator.translate``.
    """
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    certain: tuple[int, ...] = ()

    def progress(token_ids: tuple[int, ...]) -> None:
        nonlocal certain
        if len(token_ids) > len(certain):
            certain = token_ids
            loop.call_soon_threadsafe(changed.set)

    growing = GrowingText(translator.tokenizer)
    task = loop.create_task(translator.translate(text, options, deadline, progress))
    task.add_done_callback(lambda _: changed.set())
    try:
        while not task.done():
            await changed.wait()
            changed.clear()
            if added := growing.grow(certain):
                yield added
        translation = task.result()
        if added := growing.finish(translation.hypotheses[0].text):
            yield added
        yield translation
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
