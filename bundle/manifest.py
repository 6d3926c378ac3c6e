"""The manifest: what a bundle says of itself, written and read in one place.

Every fault of a folder is collected before anything is refused, so one look at the message is enough to repair it.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundle import plain_files
from bundle.decoding import Json, decode, parse
from bundle.errors import InvalidBundle, UnsafeFile
from bundle.figures import figure_faults

FORMAT_VERSION = 2
_OTHER_FORMAT = {True: "Use a newer version of the service", False: "Export the bundle again from its checkpoint"}
MANIFEST_FILE = "manifest.json"
TABLES_FILE = "component_tables.safetensors"
GRAPHS = ("encoder", "decoder_step")
REQUIRED_FILES = ("tokenizer.model", "encoder.onnx", "decoder_step.onnx", "README.md")

SCORE_KINDS = ("bilinear", "additive", "none", "addressing")
PRECISIONS = ("float32", "float16", "int8")
DTYPES = ("float32", "int64")

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # goes into addresses, labels and logs
_STATE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
# BCP-47; "x-digits" is a tag for private use.
LANGUAGE_TAG = r"(?:[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*|x(?:-[A-Za-z0-9]{1,8})+)"
_SHA256 = re.compile(r"[0-9a-f]{64}")

# A bundle that asks for more is refused before its files are read.
_MOST_BYTES = {MANIFEST_FILE: 1 << 20, "README.md": 1 << 20, "tokenizer.model": 64 << 20}
_MOST_BYTES_OF_OTHERS = (2 << 30) - 1  # protobuf's own limit, so that of an ONNX file
_MOST_BYTES_TOGETHER = 4 << 30
_MOST_TOKENS = 1 << 16
_LARGEST_SIZE = 2**31 - 1
_MOST_NAMES = 64  # of sizes, of states, of inputs or outputs


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
    manifest, faults = read_with_faults(folder)
    if manifest is None or faults:
        raise InvalidBundle(folder, faults)
    return manifest


def most_bytes(name: str) -> int:
    """Return the size that a bundle's file of this name may have."""
    return _MOST_BYTES.get(name, _MOST_BYTES_OF_OTHERS)


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


def read_with_faults(folder: Path) -> tuple[Manifest | None, list[str]]:
    """Return the manifest of ``folder``, None when it cannot even be built, and every fault of its content."""
    try:
        content = parse(plain_files.read(folder / MANIFEST_FILE, most_bytes(MANIFEST_FILE)))
    except (FileNotFoundError, NotADirectoryError):
        return None, [f"{MANIFEST_FILE} is missing"]
    except UnsafeFile as error:
        return None, [str(error)]
    except ValueError as error:
        return None, [f"{MANIFEST_FILE} cannot be read as JSON: {error}"]
    found = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(found, int) and found != FORMAT_VERSION:
        return None, [
            f"format_version is {found}; this code reads {FORMAT_VERSION}. {_OTHER_FORMAT[found > FORMAT_VERSION]}"
        ]
    faults: list[str] = []
    manifest = decode(content, Manifest, "", faults)
    if faults:
        return None, faults
    assert isinstance(manifest, Manifest)
    return manifest, list(_range_faults(manifest))


def _range_faults(manifest: Manifest) -> Iterator[str]:
    """Yield one sentence for every value that is well-typed and still impossible."""
    if manifest.format_version != FORMAT_VERSION:
        yield f"format_version is {manifest.format_version}; this code writes {FORMAT_VERSION}"
    for name in ("bundle_id", "version", "architecture"):
        if not _NAME.fullmatch(getattr(manifest, name)):
            allowed = "1 to 64 letters and digits of ASCII, dots, dashes and underscores, the first a letter or digit"
            yield f"{name} is {getattr(manifest, name)[:80]!r}; it must be {allowed}"
    for name in ("source_language", "target_language"):
        if not re.fullmatch(LANGUAGE_TAG, getattr(manifest, name)):
            yield f"{name} is {getattr(manifest, name)!r}; it must be a BCP-47 tag such as 'en' or 'pt-BR'"
    for name, choices in (("score_kind", SCORE_KINDS), ("precision", PRECISIONS)):
        if getattr(manifest, name) not in choices:
            yield f"{name} is {getattr(manifest, name)!r}; it must be one of {', '.join(choices)}"
    if manifest.decoder_token_offset not in (1, 2):  # at step s, the token of s itself is still to be found
        yield f"decoder_token_offset is {manifest.decoder_token_offset}; it must be 1 or 2"
    if not 0 <= manifest.alignment_shift <= 2:
        yield f"alignment_shift is {manifest.alignment_shift}; it must be 0, 1 or 2"
    for name, limit in dataclasses.asdict(manifest.limits).items():
        if not 2 <= limit <= _MOST_TOKENS:
            yield f"limits.{name} is {limit}; it must lie in [2, {_MOST_TOKENS}], end of sentence included"
    for key in ("data", "licence", "credit"):
        if key not in manifest.training:
            yield f"training.{key} is missing"
    yield from figure_faults(manifest.quality, manifest.reference)
    yield from _size_faults(manifest)
    yield from _graph_faults(manifest)
    yield from _declared_file_faults(manifest)


def _size_faults(manifest: Manifest) -> Iterator[str]:
    explained = manifest.score_kind == "bilinear" or manifest.tables is not None
    required = ["vocabulary", "key"] if explained else ["vocabulary"]
    yield from (f"sizes.{name} is missing" for name in required if name not in manifest.sizes)
    for name, size in manifest.sizes.items():
        if not 1 <= size <= _LARGEST_SIZE:
            yield f"sizes.{name} is {size}; it must lie in [1, {_LARGEST_SIZE}]"
    if len(manifest.sizes) > _MOST_NAMES:
        yield f"sizes names {len(manifest.sizes)} sizes; at most {_MOST_NAMES} are read"
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
    for state in manifest.state:
        if not 1 <= state.size <= _LARGEST_SIZE:
            yield f"state {state.name!r} has size {state.size}; it must lie in [1, {_LARGEST_SIZE}]"
    for graph_name, graph in manifest.graphs.items():
        if max(len(manifest.state), len(graph.inputs), len(graph.outputs)) > _MOST_NAMES:
            yield f"graphs.{graph_name} or state lists more than {_MOST_NAMES} tensors"
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
        if not FILE_NAME.fullmatch(name) or name == MANIFEST_FILE:
            yield f"files lists {name!r}; only plain names of files beside the manifest are allowed"
        if not _SHA256.fullmatch(entry.sha256):
            yield f"files.{name}.sha256 must be 64 lower-case hex digits"
        most = most_bytes(name)
        if not 0 <= entry.size_bytes <= most:
            yield f"files.{name}.size_bytes is {entry.size_bytes}; it must lie in [0, {most}]"
    if (together := sum(entry.size_bytes for entry in manifest.files.values())) > _MOST_BYTES_TOGETHER:
        yield f"the files have {together} bytes together; at most {_MOST_BYTES_TOGETHER} are read"
