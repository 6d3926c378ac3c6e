"""The manifest: what a bundle is made of, written and read in one place, and the check that nothing was changed.

Every fault of a folder is collected before anything is refused, so one look at the message is enough to repair it.
"""

import dataclasses
import hashlib
import json
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.errors import InvalidBundle

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
TABLES_FILE = "component_tables.safetensors"
GRAPHS = ("encoder", "decoder_step")
REQUIRED_FILES = ("tokenizer.model", "encoder.onnx", "decoder_step.onnx", "README.md")

SCORE_KINDS = ("bilinear", "additive", "none", "addressing")
PRECISIONS = ("float32", "int8")
DTYPES = ("float32", "int64")

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_STATE_NAME = re.compile(r"[a-z][a-z0-9_]*")
# BCP-47; "x-digits" is a tag for private use.
LANGUAGE_TAG = r"(?:[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*|x(?:-[A-Za-z0-9]{1,8})+)"
_SHA256 = re.compile(r"[0-9a-f]{64}")

Json = Any  # a JSON value; its shape is the business of the module that writes it


@dataclass(frozen=True)
class SpecialIds:
    """Token ids with a meaning of their own; the only place they are kept."""

    pad: int
    unk: int
    bos: int
    eos: int


@dataclass(frozen=True)
class StateTensor:
    """One tensor ``[batch beam size]`` that the decoder carries from step to step."""

    name: str
    size: int


@dataclass(frozen=True)
class Tensor:
    """One graph input or output: its name, element type and named axes."""

    name: str
    dtype: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """The inputs and outputs of one ONNX graph."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Limits:
    """What the bundle was made for, in tokens; both count the end-of-sentence token."""

    max_source_tokens: int
    max_target_tokens: int


@dataclass(frozen=True)
class FileDigest:
    """The SHA-256 (lower-case hex) and size in bytes of one file."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class TablesInfo:
    """Where the component tables come from; every explanation repeats this."""

    id: str
    digest: str
    corpus: str
    sentences: int
    minimum_count: int


@dataclass(frozen=True)
class Manifest:
    """The whole description of a bundle.

    Attributes:
        format_version: ``FORMAT_VERSION`` of the code that wrote it.
        bundle_id: Stable name, for example ``en-fr``.
        version: Version of this bundle under that name.
        architecture: Name in the registry of architectures, for example ``aed``.
        sizes: Named sizes; ``vocabulary`` always, ``key`` (attention key size) for bilinear scores.
        source_language: BCP-47 tag.
        target_language: BCP-47 tag.
        special_ids: Padding, unknown, beginning and end of sentence.
        state: The decoder's state tensors, in graph order.
        graphs: Inputs and outputs of ``encoder`` and ``decoder_step`` (file name without ``.onnx``).
        score_kind: One of ``SCORE_KINDS``; only bilinear scores have exactly nine terms.
        decoder_token_offset: The decoder's components at step s belong to the token emitted at s - this.
        alignment_shift: Row s + this of the attention aligns the token emitted at s.
        limits: Longest source and target.
        precision: One of ``PRECISIONS``.
        files: Every file of the folder but the manifest.
        parity: Ledger of the comparison with the training framework.
        quality: Figures with their signatures.
        training: At least ``data``, ``licence`` and ``credit``.
        reference: Histograms that telemetry is compared with.
        tables: Origin of the component tables; None when the bundle has none.
    """

    format_version: int
    bundle_id: str
    version: str
    architecture: str
    sizes: dict[str, int]
    source_language: str
    target_language: str
    special_ids: SpecialIds
    state: tuple[StateTensor, ...]
    graphs: dict[str, Graph]
    score_kind: str
    decoder_token_offset: int
    alignment_shift: int
    limits: Limits
    precision: str
    files: dict[str, FileDigest]
    parity: dict[str, Json]
    quality: dict[str, Json]
    training: dict[str, Json]
    reference: dict[str, Json]
    tables: TablesInfo | None

    @property
    def qualified_name(self) -> str:
        """Return ``bundle_id@version``, which names one of several versions that are loaded side by side."""
        return f"{self.bundle_id}@{self.version}"


def write(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest`` into ``folder``, replacing an older one in a single move.

    Raises:
        InvalidBundle: A value is out of range.
    """
    faults = list(_range_faults(manifest))
    if faults:
        raise InvalidBundle(folder, faults)
    temporary = folder / f".{MANIFEST_FILE}.{os.getpid()}"
    temporary.write_bytes(_canonical(manifest))
    os.replace(temporary, folder / MANIFEST_FILE)


def read(folder: Path) -> Manifest:
    """Return the manifest of ``folder``, its values checked but not its files.

    Raises:
        InvalidBundle: The manifest is missing, malformed or out of range; every fault is listed.
    """
    manifest, faults = _read(folder)
    if manifest is None or faults:
        raise InvalidBundle(folder, faults)
    return manifest


def verify(folder: Path) -> Manifest:
    """Return the manifest of ``folder`` after comparing every file with it.

    Raises:
        InvalidBundle: Every fault: those of ``read``, and missing, extra, truncated or edited files.
    """
    manifest, faults = _read(folder)
    if manifest is not None:
        faults = [*faults, *_file_faults(folder, manifest.files)]
    if manifest is None or faults:
        raise InvalidBundle(folder, faults)
    return manifest


def digest(manifest: Manifest) -> str:
    """Return the SHA-256 of the manifest as written, in hex: it fixes every other file, so it names the model."""
    return hashlib.sha256(_canonical(manifest)).hexdigest()


def file_digest(path: Path) -> FileDigest:
    """Return the digest and size of the file at ``path``."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return FileDigest(sha256=sha256, size_bytes=path.stat().st_size)


def file_digests(folder: Path) -> dict[str, FileDigest]:
    """Return the digest of every file of ``folder`` but the manifest, by name: what ``Manifest.files`` holds."""
    return {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST_FILE}


def _canonical(manifest: Manifest) -> bytes:
    content = dataclasses.asdict(manifest)
    return (json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True) + "\n").encode()


def _read(folder: Path) -> tuple[Manifest | None, list[str]]:
    """Return the manifest (None when it cannot even be built) and every fault of its content."""
    path = folder / MANIFEST_FILE
    try:
        content = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except FileNotFoundError:
        return None, [f"{MANIFEST_FILE} is missing"]
    except (OSError, ValueError) as error:
        return None, [f"{MANIFEST_FILE} cannot be read as JSON: {error}"]
    found = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(found, int) and found != FORMAT_VERSION:
        return None, [f"format_version is {found}; this code reads {FORMAT_VERSION}. Export the bundle again"]
    faults: list[str] = []
    manifest = _decode(content, Manifest, "", faults)
    if faults:
        return None, faults
    assert isinstance(manifest, Manifest)
    return manifest, list(_range_faults(manifest))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _decode(value: Json, expected: Any, where: str, faults: list[str]) -> Any:
    """Return ``value`` as the type ``expected``, adding to ``faults`` every place where it is something else."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if expected is Json:
        return value
    if origin is types.UnionType:
        return None if value is None else _decode(value, arguments[0], where, faults)
    if dataclasses.is_dataclass(expected):
        return _decode_fields(value, expected, where, faults)
    if origin is dict and isinstance(value, dict):
        return {key: _decode(item, arguments[1], f"{where}.{key}", faults) for key, item in value.items()}
    if origin is tuple and isinstance(value, list):
        return tuple(_decode(item, arguments[0], f"{where}[{index}]", faults) for index, item in enumerate(value))
    if expected in (int, str) and type(value) is expected:  # not isinstance: JSON true is no integer
        return value
    wanted = {dict: "an object", tuple: "a list", int: "an integer", str: "a string"}[origin or expected]
    faults.append(f"{where or MANIFEST_FILE} is {_json_kind(value)}; it must be {wanted}")
    return None


def _decode_fields(value: Json, expected: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(value, dict):
        faults.append(f"{where or MANIFEST_FILE} is {_json_kind(value)}; it must be an object")
        return None
    hints = typing.get_type_hints(expected)
    prefix = f"{where}." if where else ""
    faults.extend(f"{prefix}{key} is not a key of format {FORMAT_VERSION}" for key in value.keys() - hints.keys())
    faults.extend(f"{prefix}{key} is missing" for key in hints.keys() - value.keys())
    known = {key: _decode(value[key], hints[key], prefix + key, faults) for key in hints if key in value}
    return None if faults else expected(**known)


def _json_kind(value: Json) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "an integer"}
    return "null" if value is None else names.get(type(value), "a number")


def _range_faults(manifest: Manifest) -> Iterator[str]:
    """Yield one sentence for every value that is well-typed and still impossible."""
    if manifest.format_version != FORMAT_VERSION:
        yield f"format_version is {manifest.format_version}; this code writes {FORMAT_VERSION}"
    for name in ("bundle_id", "version", "architecture"):
        if not getattr(manifest, name).strip():
            yield f"{name} is empty"
    for name in ("source_language", "target_language"):
        if not re.fullmatch(LANGUAGE_TAG, getattr(manifest, name)):
            yield f"{name} is {getattr(manifest, name)!r}; it must be a BCP-47 tag such as 'en' or 'pt-BR'"
    for name, allowed in (("score_kind", SCORE_KINDS), ("precision", PRECISIONS)):
        if getattr(manifest, name) not in allowed:
            yield f"{name} is {getattr(manifest, name)!r}; it must be one of {', '.join(allowed)}"
    for name in ("decoder_token_offset", "alignment_shift"):
        if not 0 <= getattr(manifest, name) <= 2:
            yield f"{name} is {getattr(manifest, name)}; it must be 0, 1 or 2"
    for name, limit in dataclasses.asdict(manifest.limits).items():
        if limit < 2:
            yield f"limits.{name} is {limit}; it must be at least 2 (one token and end of sentence)"
    for key in ("data", "licence", "credit"):
        if key not in manifest.training:
            yield f"training.{key} is missing"
    yield from _size_faults(manifest)
    yield from _graph_faults(manifest)
    yield from _declared_file_faults(manifest)


def _size_faults(manifest: Manifest) -> Iterator[str]:
    required = ["vocabulary", "key"] if manifest.score_kind == "bilinear" else ["vocabulary"]
    yield from (f"sizes.{name} is missing" for name in required if name not in manifest.sizes)
    yield from (f"sizes.{name} is {size}; it must be positive" for name, size in manifest.sizes.items() if size < 1)
    special = dataclasses.asdict(manifest.special_ids)
    vocabulary = manifest.sizes.get("vocabulary", 0)
    for name, token_id in special.items():
        if not 0 <= token_id < vocabulary:
            yield f"special_ids.{name} is {token_id}; it must lie in [0, {vocabulary})"
    if len(set(special.values())) < len(special):
        yield f"special_ids are {special}; they must differ from each other"
    if manifest.tables is not None:
        if not _SHA256.fullmatch(manifest.tables.digest):
            yield "tables.digest must be 64 lower-case hex digits"
        if manifest.tables.sentences < 1 or manifest.tables.minimum_count < 1:
            yield "tables.sentences and tables.minimum_count must be positive"


def _graph_faults(manifest: Manifest) -> Iterator[str]:
    if set(manifest.graphs) != set(GRAPHS):
        yield f"graphs are {sorted(manifest.graphs)}; they must be {sorted(GRAPHS)}"
        return
    names = [tensor.name for tensor in manifest.state]
    if len(set(names)) < len(names) or not all(_STATE_NAME.fullmatch(name) for name in names):
        yield f"state names are {names}; they must be different lower-case identifiers"
    yield from (f"state {t.name!r} has size {t.size}; it must be positive" for t in manifest.state if t.size < 1)
    for graph_name, graph in manifest.graphs.items():
        for tensor in (*graph.inputs, *graph.outputs):
            if tensor.dtype not in DTYPES:
                yield f"graphs.{graph_name}: {tensor.name!r} is {tensor.dtype!r}; it must be one of {', '.join(DTYPES)}"
    encoder, step = (manifest.graphs[name] for name in GRAPHS)
    declared = (
        ("encoder outputs", {t.name for t in encoder.outputs}, "initial_{}"),
        ("decoder_step inputs", {t.name for t in step.inputs}, "{}"),
        ("decoder_step outputs", {t.name for t in step.outputs}, "next_{}"),
    )
    for place, present, pattern in declared:
        for name in names:
            if pattern.format(name) not in present:
                yield f"graphs: {place} lack {pattern.format(name)!r} of state {name!r}"


def _declared_file_faults(manifest: Manifest) -> Iterator[str]:
    required = {*REQUIRED_FILES, *([TABLES_FILE] if manifest.tables is not None else [])}
    yield from (f"files does not list {name}" for name in sorted(required - manifest.files.keys()))
    for name, entry in manifest.files.items():
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST_FILE:
            yield f"files lists {name!r}; only plain names of files beside the manifest are allowed"
        if not _SHA256.fullmatch(entry.sha256):
            yield f"files.{name}.sha256 must be 64 lower-case hex digits"
        if entry.size_bytes < 0:
            yield f"files.{name}.size_bytes is {entry.size_bytes}; it cannot be negative"


def _file_faults(folder: Path, files: Mapping[str, FileDigest]) -> Iterator[str]:
    present = {path.name for path in folder.iterdir()} - {MANIFEST_FILE}
    yield from (f"{name} is in the folder but not in the manifest" for name in sorted(present - files.keys()))
    for name, expected in files.items():
        if not _FILE_NAME.fullmatch(name):
            continue  # already a fault; its path is never opened
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != expected.size_bytes:
            yield f"{name} has {path.stat().st_size} bytes; the manifest says {expected.size_bytes}"
        elif file_digest(path).sha256 != expected.sha256:
            yield f"{name} was changed: its SHA-256 is not the manifest's"
