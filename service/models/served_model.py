"""A loaded bundle and the use cases that answer from it."""

from dataclasses import dataclass

from bundle.manifest import Manifest
from service.component_reader import ComponentReader
from service.contrast import Comparer
from service.explainer import Explainer
from service.translator import Translator
from service.what_if import WhatIf


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
