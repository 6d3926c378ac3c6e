"""Which models are loaded, which of them answers a request, and how long one that is taken away still has to stay.

A request leases the model that answers it. A model that is replaced or unloaded gets no new leases and is closed when
the last one ends, so what was begun is finished by the model that began it.
"""

import contextlib
from collections.abc import Iterator

from service.errors import LanguagePairNotFound, ModelNotFound
from service.models.served_model import ServedModel

_SHOWN_NAME = 64  # characters of a caller's name for something that an error repeats


class Models:
    """The loaded models; its methods belong to one event loop."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model

    @contextlib.contextmanager
    def leased(self, name: str, source_language: str, target_language: str) -> Iterator[ServedModel]:
        """Lend the model that answers a request while the context lasts.

        Args:
            name: ``bundle_id``, ``bundle_id@version``, or empty for the default model of the language pair.
            source_language: BCP-47 tag, or empty for whatever the model reads.
            target_language: BCP-47 tag, or empty for whatever the model writes.

        Raises:
            ModelNotFound: No model of that name, or of that version, is loaded.
            LanguagePairNotFound: No loaded model, or not the one of that name, translates between the two.
        """
        self._check(name, source_language, target_language)
        yield self._model

    def listed(self) -> list[ServedModel]:
        """Return all models, the default one first."""
        return [self._model]

    def _check(self, name: str, source: str, target: str) -> None:
        own = self._model.manifest
        if name not in ("", own.bundle_id, own.qualified_name):
            raise ModelNotFound(f"no model {name[:_SHOWN_NAME]!r} is loaded; loaded is {own.bundle_id!r}")
        if not is_within(source, own.source_language) or not is_within(target, own.target_language):
            asked = (
                f"{source[:_SHOWN_NAME] or own.source_language!r} to {target[:_SHOWN_NAME] or own.target_language!r}"
            )
            loaded = f"{own.source_language!r} to {own.target_language!r}"
            raise LanguagePairNotFound(f"no loaded model translates {asked}; {own.bundle_id!r} translates {loaded}")


def is_within(requested: str, own: str) -> bool:
    """Return whether a language tag is ``own`` or narrower (RFC 4647 lookup: "en-GB" is within "en"), or empty."""
    return not requested or f"{requested.lower()}-".startswith(f"{own.lower()}-")
