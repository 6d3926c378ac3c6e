"""Translations that were made before, for those who ask again; the least recently used ones make room."""

from typing import Any, NamedTuple

import cachetools

from service.metrics import Metrics
from service.pb import interlinear_pb2 as pb
from service.translation import TranslationOptions

_ENTRY_BYTES = 1024  # what an entry takes besides its text and its translation, about


class CacheKey(NamedTuple):
    """All that the translation of a text depends on, and how it is written: equal keys, equal bytes.

    Attributes:
        principal: Who asks. What others have asked for, nobody is to learn from how soon an answer comes.
        digest: Of the model.
        reverse_digest: Of the model of the reverse direction, which alignments may be drawn from; "" without one.
        text: What is translated.
        options: How, every default filled in.
        detail: How much of the alignment is told (an AlignmentDetail).
        encoding: How matrices are written (a MatrixEncoding).
    """

    principal: str
    digest: str
    reverse_digest: str
    text: str
    options: TranslationOptions
    detail: int
    encoding: int


class TranslationCache:
    """Keeps translations as they were sent. It belongs to one event loop."""

    def __init__(self, limit_bytes: int, metrics: Metrics) -> None:
        """Prepare to keep ``limit_bytes`` of texts and translations at most; 0 keeps none."""
        self._entries = _Entries(limit_bytes, metrics)
        self._metrics = metrics.cache

    def get(self, key: CacheKey) -> pb.Translation | None:
        """Return what was kept, marked as such, or None."""
        if not self._entries.maxsize:
            return None
        entry = self._entries.get(key)
        if entry is None:
            self._metrics.misses.inc()
            return None
        self._metrics.hits.inc()
        translation: pb.Translation = pb.Translation.FromString(entry.written)
        translation.cached = True
        return translation

    def keep(self, key: CacheKey, translation: pb.Translation) -> None:
        """Keep a translation, unless it is larger than the whole cache."""
        if not self._entries.maxsize:
            return
        written = translation.SerializeToString()
        entry = _Entry(written, len(written) + len(key.text.encode()) + _ENTRY_BYTES)
        if entry.size_bytes <= self._entries.maxsize:
            self._entries[key] = entry
            self._metrics.entries.set(len(self._entries))
            self._metrics.bytes.set(self._entries.currsize)


class _Entry(NamedTuple):
    """A translation as it travels, and the memory it takes."""

    written: bytes
    size_bytes: int


class _Entries(cachetools.LRUCache[CacheKey, _Entry]):
    """The entries by their keys, those that make room counted."""

    def __init__(self, limit_bytes: int, metrics: Metrics) -> None:
        super().__init__(limit_bytes, getsizeof=lambda entry: entry.size_bytes)
        self._evictions = metrics.cache.evictions

    def popitem(self) -> Any:
        self._evictions.inc()
        return super().popitem()
