"""A loaded bundle, the use cases that answer from it, and which requests are meant for it."""

from dataclasses import dataclass

from bundle.manifest import Manifest
from service.component_reader import ComponentReader
from service.contrast import Comparer
from service.errors import LanguagePairNotFound, ModelNotFound
from service.explainer import Explainer
from service.translator import Translator
from service.what_if import WhatIf

_SHOWN_NAME = 64  # characters of a caller's name for something that an error repeats


@dataclass(frozen=True)
class ServedModel:
    """A loaded bundle and the use cases that answer from it.

    Attributes:
        manifest: Of the bundle.
        digest: Of the manifest.
        card: Model card, Markdown.
        device: ``cpu`` or ``cuda:N``.
        translator: Answers ``Translate``.
        explainer: Answers ``Explain``.
        components: Tells of an explanation's components, where ``Explain`` is asked for them.
        comparer: Answers ``Contrast`` and ``ListAlternatives``.
        what_if: Answers ``WhatIf``.
    """

    manifest: Manifest
    digest: str
    card: str
    device: str
    translator: Translator
    explainer: Explainer
    components: ComponentReader
    comparer: Comparer
    what_if: WhatIf

    def check_name(self, name: str) -> None:
        """Accept the model's own name, or none.

        Raises:
            ModelNotFound: Another name.
        """
        if name not in ("", self.manifest.bundle_id):
            raise ModelNotFound(f"no model {name[:_SHOWN_NAME]!r} is loaded; loaded is {self.manifest.bundle_id!r}")

    def check_languages(self, source: str, target: str) -> None:
        """Accept the model's own pair, narrower tags of it, or none.

        Raises:
            LanguagePairNotFound: Another pair.
        """
        own = self.manifest
        if not _is_within(source, own.source_language) or not _is_within(target, own.target_language):
            asked = (
                f"{source[:_SHOWN_NAME] or own.source_language!r} to {target[:_SHOWN_NAME] or own.target_language!r}"
            )
            loaded = f"{own.source_language!r} to {own.target_language!r}"
            raise LanguagePairNotFound(f"no loaded model translates {asked}; {own.bundle_id!r} translates {loaded}")


def _is_within(requested: str, own: str) -> bool:
    """Return whether a language tag is ``own`` or narrower (RFC 4647 lookup: "en-GB" is within "en"), or empty."""
    return not requested or f"{requested.lower()}-".startswith(f"{own.lower()}-")
