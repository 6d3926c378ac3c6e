"""A loaded bundle and the use cases that answer from it."""

from dataclasses import dataclass
from pathlib import Path

from bundle.manifest import Manifest
from service.component_reader import ComponentReader
from service.contrast import Comparer
from service.explainer import Explainer
from service.scheduler import Scheduler
from service.translator import Translator
from service.what_if import WhatIf


@dataclass(frozen=True)
class ServedModel:
    """A loaded bundle and the use cases that answer from it.

    Attributes:
        folder: Where the bundle was read.
        manifest: Of the bundle.
        digest: Of the manifest.
        reverse_digest: Of the model of the reverse direction that alignments may be drawn from; "" without one.
        card: Model card, Markdown.
        device: ``cpu`` or ``cuda:N``.
        scheduler: Runs it.
        translator: Answers ``Translate``.
        explainer: Answers ``Explain``.
        components: Tells of an explanation's components, where ``Explain`` is asked for them.
        comparer: Answers ``Contrast`` and ``ListAlternatives``.
        what_if: Answers ``WhatIf``.
    """

    folder: Path
    manifest: Manifest
    digest: str
    reverse_digest: str
    card: str
    device: str
    scheduler: Scheduler
    translator: Translator
    explainer: Explainer
    components: ComponentReader
    comparer: Comparer
    what_if: WhatIf

    @property
    def size_bytes(self) -> int:
        """The size of the bundle's files."""
        return sum(file.size_bytes for file in self.manifest.files.values())

    async def close(self) -> None:
        """Stop the worker thread; who still waits for an answer gets ``Draining``."""
        await self.scheduler.close()
