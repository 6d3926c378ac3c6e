"""Which models are loaded, which of them answers a request, and how long one that is taken away still has to stay.

A model has a name and a version, both from its manifest; several versions of a name may be loaded, and one of them is
active: it answers requests that name no version. A request leases the model that answers it. A model that is replaced
or removed gets no new leases and is closed when the last one ends, so what was begun is finished by the model that
began it.

Which name answers a request that names none: of the active versions that translate between the languages asked for, one
with the narrowest tags (a request from "pt-BR" prefers a model of "pt-BR" to one of "pt"), and among those the one that
stands first in ``listed``: the default name, then all others in natural order.
"""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from service.errors import EngineUnready, LanguagePairNotFound, ModelInUse, ModelNotFound
from service.metrics import Metrics
from service.models.served_model import ServedModel

_SHOWN_NAME = 64  # characters of a caller's name for something that an error repeats
_SHOWN_MODELS = 8

Natural = tuple[tuple[tuple[int, int | str], ...], str]


class Standing(NamedTuple):
    """What a loaded model is among the others.

    Attributes:
        active: It answers requests that name it without a version.
        default: It answers requests that name no model, and its languages.
    """

    active: bool
    default: bool


class Activated(NamedTuple):
    """A model that answers for its name from now on.

    Attributes:
        model: It.
        previous_version: The version of the same name that did before; empty for none.
    """

    model: ServedModel
    previous_version: str


@dataclass(eq=False)
class _Held:
    """A model, and who uses it."""

    model: ServedModel
    leases: int = 0
    retired: bool = False
    closing: asyncio.Task[None] | None = None


@dataclass(eq=False)
class _Line:
    """The loaded versions of one name; ``order`` has them by when they last became active, the active one last."""

    held: dict[str, _Held] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    @property
    def active(self) -> ServedModel:
        return self.held[self.order[-1]].model

    @property
    def listed(self) -> list[str]:
        """Return the versions, the active one first and the others in natural order."""
        return sorted(self.held, key=lambda version: (version != self.order[-1], natural(version)))

    def activate(self, version: str) -> None:
        if version in self.order:
            self.order.remove(version)
        self.order.append(version)


class Models:
    """The loaded models; its methods belong to one event loop."""

    def __init__(self, metrics: Metrics, default_name: str = "") -> None:
        """Start with none.

        Args:
            metrics: Where their number and size are told.
            default_name: The name that stands first; empty for none in particular.
        """
        self._metrics = metrics
        self._default_name = default_name
        self._lines: dict[str, _Line] = {}
        self._listed: list[ServedModel] = []
        self._active: list[ServedModel] = []  # in the order of the list
        self._retired: set[_Held] = set()
        self._expected: set[str] = set()  # qualified names of what is being loaded

    @property
    def ready(self) -> bool:
        """Whether there is a model that answers by default, and it can."""
        return bool(self._listed) and self._listed[0].scheduler.health == "serving"

    @property
    def size_bytes(self) -> int:
        """The size of the files of all models in memory, those that are about to go included."""
        return sum(held.model.size_bytes for held in [*self._every(), *self._retired])

    @contextlib.contextmanager
    def leased(self, name: str, source_language: str, target_language: str) -> Iterator[ServedModel]:
        """Lend the model that answers a request while the context lasts.

        Args:
            name: ``bundle_id``, ``bundle_id@version``, or empty for the default model of the language pair.
            source_language: BCP-47 tag, or empty for whatever the model reads.
            target_language: BCP-47 tag, or empty for whatever the model writes.

        Raises:
            EngineUnready: No model is loaded yet.
            ModelNotFound: No model of that name, or of that version, is loaded.
            LanguagePairNotFound: No loaded model, or not the one of that name, translates between the two.
        """
        model = self._named(name) if name else self._default(source_language, target_language)
        manifest = model.manifest
        if not is_within(source_language, manifest.source_language) or not is_within(
            target_language, manifest.target_language
        ):
            raise self._no_pair(source_language, target_language, manifest.qualified_name)
        held = self._lines[manifest.bundle_id].held[manifest.version]
        held.leases += 1
        try:
            yield model
        finally:
            held.leases -= 1
            self._close_if_done(held)

    def listed(self) -> list[ServedModel]:
        """Return all models: the default name first, other names in natural order, the active version before others."""
        return list(self._listed)

    def standing(self, model: ServedModel) -> Standing:
        """Return what ``model`` is among those that are loaded."""
        manifest = model.manifest
        pair = manifest.source_language, manifest.target_language
        of_pair = [m for m in self._active if (m.manifest.source_language, m.manifest.target_language) == pair]
        return Standing(model in self._active, model in of_pair[:1])

    def find(self, name: str, version: str) -> ServedModel:
        """Return one version of a name.

        Raises:
            ModelNotFound: It is not loaded.
        """
        line = self._lines.get(name)
        if line is None or version not in line.held:
            raise self._not_found(f"{name}@{version}")
        return line.held[version].model

    @contextlib.contextmanager
    def expected(self, name: str) -> Iterator[None]:
        """Keep the series of a qualified name while a model that will have it is made, and drop them if none comes.

        Without that, one of the same name that is closed meanwhile would take them along.
        """
        self._expected.add(name)
        try:
            yield
        finally:
            self._expected.remove(name)
            self._forget_if_gone(name)

    def add(self, model: ServedModel) -> Activated:
        """Let ``model`` answer for its name; one of the same name and version is replaced."""
        name, version = model.manifest.bundle_id, model.manifest.version
        line = self._lines.setdefault(name, _Line())
        previous = line.order[-1] if line.order else ""
        if version in line.held:
            self._retire(line.held[version])
        line.held[version] = _Held(model)
        line.activate(version)
        self._changed()
        return Activated(model, previous)

    def activate(self, name: str, version: str = "") -> Activated:
        """Let a loaded version answer requests that name none.

        Args:
            name: Of the model.
            version: Which; empty for the one that was active before the present one.

        Raises:
            ModelNotFound: It is not loaded, or none was active before.
        """
        line = self._lines.get(name)
        if line is None:
            raise self._not_found(name)
        if not version and len(line.order) < 2:
            raise ModelNotFound(f"only one version of {name!r} is loaded, so there is none to go back to")
        previous, chosen = line.order[-1], version or line.order[-2]
        if chosen not in line.held:
            raise self._not_found(f"{name}@{chosen}")
        line.activate(chosen)
        self._changed()
        return Activated(line.active, previous)

    def remove(self, name: str, version: str, folder_is_gone: bool = False) -> None:
        """Take a version away; it is closed when the last request that it answers ends.

        The active one stays while its folder is there; without it, the version that was active before takes over. The
        service's last model stays in any case: a folder that vanishes may be a disk that is not mounted.

        Raises:
            ModelNotFound: It is not loaded.
            ModelInUse: It is active, or the last.
        """
        self.find(name, version)
        line = self._lines[name]
        if len(self._lines) == len(line.held) == 1:
            raise ModelInUse(f"{name}@{version} is the only model there is, so it stays; load another one first")
        if version == line.order[-1] and not folder_is_gone:
            raise ModelInUse(
                f"{name}@{version} answers requests that name no version, so it cannot be unloaded; activate another "
                "version first, or take its folder away"
            )
        self._retire(line.held.pop(version))
        line.order.remove(version)
        if not line.held:
            del self._lines[name]
        self._changed()

    async def close(self) -> None:
        """Close every model; who still waits for an answer gets ``Draining``."""
        for held in self._every():
            self._retire(held)
        self._lines.clear()
        self._changed()
        retired = tuple(self._retired)
        for held in retired:
            held.leases = 0
            self._close_if_done(held)
        await asyncio.gather(*(held.closing for held in retired if held.closing))

    def _every(self) -> list[_Held]:
        return [held for line in self._lines.values() for held in line.held.values()]

    def _retire(self, held: _Held) -> None:
        held.retired = True
        self._retired.add(held)
        self._close_if_done(held)

    def _close_if_done(self, held: _Held) -> None:
        if held.retired and not held.leases and held.closing is None:
            held.closing = asyncio.get_running_loop().create_task(self._close(held))

    async def _close(self, held: _Held) -> None:
        await held.model.close()
        self._retired.remove(held)
        self._count()
        self._forget_if_gone(held.model.manifest.qualified_name)

    def _forget_if_gone(self, name: str) -> None:
        known = {held.model.manifest.qualified_name for held in [*self._every(), *self._retired]}
        if name not in known | self._expected:
            self._metrics.forget(name)

    def _changed(self) -> None:
        """Work out what every request asks for, once a change."""
        lines = sorted(self._lines.items(), key=lambda item: (item[0] != self._default_name, natural(item[0])))
        self._active = [line.active for _, line in lines]
        self._listed = [line.held[version].model for _, line in lines for version in line.listed]
        self._count()

    def _count(self) -> None:
        self._metrics.models.loaded.set(len(self._every()))
        self._metrics.models.bytes.set(self.size_bytes)

    def _named(self, name: str) -> ServedModel:
        """Return the active version of ``name``, or the one that it names behind an ``@``."""
        bundle_id, _, version = name.partition("@")
        line = self._lines.get(bundle_id)
        if line is None or (version or line.order[-1]) not in line.held or name.endswith("@"):
            raise self._not_found(name)
        return line.held[version].model if version else line.active

    def _default(self, source: str, target: str) -> ServedModel:
        if not self._active:
            raise EngineUnready("no model is loaded yet; try again, or ask another replica")
        fitting = [
            model
            for model in self._active
            if is_within(source, model.manifest.source_language) and is_within(target, model.manifest.target_language)
        ]
        if not fitting:
            raise self._no_pair(source, target)

        def breadth(model: ServedModel) -> tuple[int, int]:
            """Return how narrow the tags are where the request has one; the first of equals is taken."""
            manifest = model.manifest
            return -len(manifest.source_language) * bool(source), -len(manifest.target_language) * bool(target)

        return min(fitting, key=breadth)

    def _not_found(self, name: str) -> ModelNotFound:
        return ModelNotFound(f"no model {name[:_SHOWN_NAME]!r} is loaded; {self._loaded()}")

    def _no_pair(self, source: str, target: str, name: str = "") -> LanguagePairNotFound:
        asked = f"{source[:_SHOWN_NAME] or 'any language'!r} to {target[:_SHOWN_NAME] or 'any language'!r}"
        who = repr(name) if name else "no loaded model"
        does = "does not translate" if name else "translates"
        return LanguagePairNotFound(f"{who} {does} {asked}; {self._loaded()}")

    def _loaded(self) -> str:
        """Return what is loaded, for an error."""
        models = [
            f"{m.manifest.qualified_name!r} ({m.manifest.source_language} to {m.manifest.target_language})"
            for m in self._listed
        ]
        more = f" and {len(models) - _SHOWN_MODELS} more" if len(models) > _SHOWN_MODELS else ""
        return f"loaded: {', '.join(models[:_SHOWN_MODELS]) or 'none'}{more}"


def natural(text: str) -> Natural:
    """Return a key by which texts are ordered as a person would: numbers by their value, the rest by its characters.

    >>> sorted(["10", "9", "1.10", "1.9", "1.9-b"], key=natural)
    ['1.9', '1.9-b', '1.10', '9', '10']
    """
    parts = re.split(r"([0-9]+)", text)  # numbers at the odd places
    key = tuple((0, int(part)) if index % 2 else (1, part) for index, part in enumerate(parts) if part)
    return key, text  # "1" and "01" differ


def is_within(requested: str, own: str) -> bool:
    """Return whether a language tag is ``own`` or narrower (RFC 4647 lookup: "en-GB" is within "en"), or empty."""
    return not requested or f"{requested.lower()}-".startswith(f"{own.lower()}-")
