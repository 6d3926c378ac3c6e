"""Every way in which a bundle can be wrong, each named in the message, all of them at once."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bundle import contents, manifest
from bundle.errors import InvalidBundle
from bundle.manifest import FileDigest, Graph, Limits, Manifest, SpecialIds, StateTensor, TablesInfo, Tensor

FILES = ("tokenizer.model", "encoder.onnx", "decoder_step.onnx", "component_tables.safetensors", "README.md")


def tensor(name: str) -> Tensor:
    return Tensor(name, "float32", ("batch", "size"))


def described(folder: Path) -> Manifest:
    return Manifest(
        format_version=manifest.FORMAT_VERSION,
        bundle_id="en-fr",
        version="1.0.0",
        architecture="aed",
        sizes={"vocabulary": 8000, "hidden": 512, "key": 128},
        source_language="en",
        target_language="fr-CA",
        special_ids=SpecialIds(pad=0, unk=1, bos=2, eos=3),
        state=(StateTensor("decoder_state_0", 512),),
        graphs={
            "encoder": Graph((tensor("source_ids"),), (tensor("initial_decoder_state_0"),)),
            "decoder_step": Graph((tensor("decoder_state_0"),), (tensor("next_decoder_state_0"),)),
        },
        score_kind="bilinear",
        decoder_token_offset=1,
        alignment_shift=0,
        limits=Limits(max_source_tokens=256, max_target_tokens=256),
        precision="int8",
        files=manifest.file_digests(folder),
        parity={"log_probability": 1e-5},
        quality={"tatoeba": {"bleu": {"value": 38.0}}},
        training={"data": "tatoeba", "licence": "CC BY 2.0 FR", "credit": "tatoeba.org"},
        reference={},
        tables=TablesInfo("fit-1", "0" * 64, "toy corpus", 100_000, 5),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole bundle, as far as the manifest can tell."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(f"content of {name}".encode())
    manifest.write(folder, described(folder))
    return folder


def replaced(file: Path, make: Callable[[Path], object]) -> None:
    """Put something else in the place of ``file``."""
    file.unlink()
    make(file)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest behind the writer's back."""
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def faults(folder: Path) -> tuple[str, ...]:
    with pytest.raises(InvalidBundle) as caught:
        contents.read(folder)
    return caught.value.faults


def test_a_whole_bundle_comes_back_as_it_was_written(folder: Path) -> None:
    assert contents.read(folder).manifest == manifest.read(folder) == described(folder)
    assert {path.name for path in folder.iterdir()} == {*FILES, "manifest.json"}


def test_the_digest_of_a_bundle_is_that_of_its_manifest_file(folder: Path) -> None:
    expected = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert manifest.digest(manifest.read(folder)) == expected
    assert manifest.digest(replace(manifest.read(folder), version="1.0.1")) != expected


def test_a_bundle_without_tables_is_whole(folder: Path) -> None:
    (folder / "component_tables.safetensors").unlink()
    manifest.write(folder, replace(described(folder), tables=None))
    assert contents.read(folder).manifest.tables is None


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda f: (f / "README.md").unlink(), "README.md is missing"),
        (lambda f: (f / "notes.txt").touch(), "notes.txt is in the folder but not in the manifest"),
        (lambda f: (f / "encoder.onnx").write_bytes(b"short"), "encoder.onnx has 5 bytes; the manifest says 23"),
        (
            lambda f: (f / "encoder.onnx").write_bytes(b"Content of encoder.onnx"),
            "encoder.onnx was changed: its SHA-256",
        ),
        (lambda f: shutil.copy(f / "README.md", f / "encoder.onnx"), "encoder.onnx has 20 bytes"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json cannot be read as JSON"),
        (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe\x00"), "manifest.json cannot be read as JSON"),
        (
            lambda f: (f / "manifest.json").write_text('{"parity": NaN}'),
            "manifest.json cannot be read as JSON: NaN is no",
        ),
        (lambda f: (f / "manifest.json").write_text("[]"), "the document is a list; it must be an object"),
        (lambda f: shutil.rmtree(f), "manifest.json is missing"),
        (lambda f: (f / "manifest.json").write_bytes(b" " * 2**21), "manifest.json has 2097152 bytes; at most 1048576"),
        (
            lambda f: (f / "manifest.json").write_text('{"a": 1, "a": 2}'),
            "manifest.json cannot be read as JSON: the key",
        ),
        (lambda f: replaced(f / "manifest.json", os.mkfifo), "manifest.json is no plain file"),
        (lambda f: replaced(f / "encoder.onnx", os.mkfifo), "encoder.onnx is no plain file"),
        (lambda f: replaced(f / "encoder.onnx", os.mkdir), "encoder.onnx is no plain file"),
        (lambda f: replaced(f / "encoder.onnx", lambda p: p.symlink_to("README.md")), "encoder.onnx is a link"),
        (lambda f: [(f / f"extra{n}").touch() for n in range(64)], "the folder holds more than 64 files"),
    ],
)
def test_a_damaged_folder_is_refused(folder: Path, damage: Callable[[Path], object], fault: str) -> None:
    damage(folder)
    [found] = faults(folder)
    assert found.startswith(fault)


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], object]:
    """Return an edit that sets the value at ``path``."""

    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            put("format_version", value=99),
            "format_version is 99; this code reads 2. Use a newer version of the service",
        ),
        (put("colour", value="blue"), "colour is not a key of this format"),
        (put("limits", "patience", value=3), "limits.patience is not a key of this format"),
        (lambda c: c.pop("precision"), "precision is missing"),
        (lambda c: c["special_ids"].pop("eos"), "special_ids.eos is missing"),
        (put("bundle_id", value=3), "bundle_id is an integer; it must be a string"),
        (put("sizes", value=[]), "sizes is a list; it must be an object"),
        (put("sizes", "hidden", value="512"), "sizes.hidden is a string; it must be an integer"),
        (put("sizes", "hidden", value=True), "sizes.hidden is a boolean; it must be an integer"),
        (put("sizes", "hidden", value=1.5), "sizes.hidden is a number; it must be an integer"),
        (put("state", value={}), "state is an object; it must be a list"),
        (put("state", 0, "size", value=None), "state[0].size is null; it must be an integer"),
        (put("tables", value=3), "tables is an integer; it must be an object"),
        (put("graphs", "encoder", "inputs", 0, "axes", value="batch"), "graphs.encoder.inputs[0].axes is a string"),
        (put("bundle_id", value=" "), "bundle_id is ' '; it must be 1 to 64"),
        (put("target_language", value="français"), "target_language is 'français'; it must be a BCP-47 tag"),
        (put("score_kind", value="cosine"), "score_kind is 'cosine'; it must be one of bilinear"),
        (put("precision", value="int4"), "precision is 'int4'; it must be one of float32, float16, int8"),
        (put("decoder_token_offset", value=-1), "decoder_token_offset is -1; it must be 1 or 2"),
        (put("alignment_shift", value=3), "alignment_shift is 3; it must be 0, 1 or 2"),
        (put("limits", "max_source_tokens", value=1), "limits.max_source_tokens is 1; it must lie in [2, 65536]"),
        (lambda c: c["training"].pop("licence"), "training.licence is missing"),
        (lambda c: c["sizes"].pop("key"), "sizes.key is missing"),
        (put("sizes", "key", value=0), "sizes.key is 0; it must lie in [1"),
        (put("special_ids", "eos", value=8000), "special_ids.eos is 8000; it must lie in [0, 8000)"),
        (put("special_ids", "eos", value=2), "special_ids are {"),
        (put("decoder_token_offset", value=0), "decoder_token_offset is 0; it must be 1 or 2"),
        (put("bundle_id", value="../x"), "bundle_id is '../x'; it must be 1 to 64"),
        (put("version", value="1 2"), "version is '1 2'; it must be 1 to 64"),
        (put("version", value="1@2"), "version is '1@2'; it must be 1 to 64"),
        (put("architecture", value="a" * 65), "architecture is 'aaa"),
        (put("limits", "max_target_tokens", value=2**31), "limits.max_target_tokens is 2147483648; it must lie in [2"),
        (put("sizes", "hidden", value=2**31), "sizes.hidden is 2147483648; it must lie in [1, 2147483647]"),
        (put("sizes", value={f"s{n}": 1 for n in range(65)}), "sizes names 65 sizes; at most 64"),
        (
            lambda c: c["state"].extend([{"name": f"s{n}", "size": 1} for n in range(65)]),
            "graphs.encoder or state lists",
        ),
        (put("quality", value={"set": {"BLEU": 3}}), "quality.set must hold a value"),
        (put("quality", value={"set": {"BLEU": {"value": "x"}}}), "quality.set must hold a value"),
        (put("quality", value={"set": {"BLEU": {"value": 1, "signature": 3}}}), "quality.set must hold a value"),
        (put("reference", value={"histograms": 3}), "reference.histograms must be an object"),
        (
            put("reference", value={"histograms": {"a": {"upper_bounds": [2, 1], "counts": [1, 1, 1]}}}),
            "reference.histograms.a must have rising upper_bounds",
        ),
        (
            put("reference", value={"histograms": {"a": {"upper_bounds": [1], "counts": [1]}}}),
            "reference.histograms.a must have rising upper_bounds",
        ),
        (put("files", "README.md", "size_bytes", value=2**21), "files.README.md.size_bytes is 2097152; it must lie in"),
        (put("files", "encoder.onnx", "size_bytes", value=2**31), "files.encoder.onnx.size_bytes is 2147483648"),
        (
            lambda c: [
                c["files"].__setitem__(f"f{n}", {"sha256": "0" * 64, "size_bytes": 2**31 - 1}) for n in range(3)
            ],
            "the files have 6",
        ),
        (put("tables", "digest", value="abc"), "tables.digest must be 64 lower-case hex digits"),
        (put("tables", "sentences", value=0), "tables.sentences and tables.minimum_count must be positive"),
        (lambda c: c["graphs"].pop("encoder"), "graphs are ['decoder_step']"),
        (put("graphs", "encoder", "inputs", 0, "dtype", value="half"), "graphs.encoder: 'source_ids' is 'half'"),
        (put("graphs", "encoder", "outputs", value=[]), "graphs: encoder outputs lack 'initial_decoder_state_0'"),
        (put("graphs", "decoder_step", "inputs", value=[]), "graphs: decoder_step inputs lack 'decoder_state_0'"),
        (
            put("graphs", "decoder_step", "outputs", value=[]),
            "graphs: decoder_step outputs lack 'next_decoder_state_0'",
        ),
        (put("state", 0, "size", value=0), "state 'decoder_state_0' has size 0; it must lie in [1"),
        (lambda c: c["state"].append(c["state"][0]), "state names are ['decoder_state_0', 'decoder_state_0']"),
        (
            put("files", "README.md", "sha256", value="A" * 64),
            "files.README.md.sha256 must be 64 lower-case hex digits",
        ),
        (
            put("files", "README.md", "size_bytes", value=-1),
            "files.README.md.size_bytes is -1; it must lie in [0, 1048576]",
        ),
    ],
)
def test_an_impossible_value_is_refused_by_name(
    folder: Path, change: Callable[[dict[str, Any]], object], fault: str
) -> None:
    edit(folder, change)
    found = faults(folder)
    assert any(line.startswith(fault) for line in found), found


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", "..", "manifest.json", ".hidden", "", "a\nb"])
def test_a_file_name_that_leaves_the_folder_is_refused_and_never_opened(folder: Path, name: str) -> None:
    (folder.parent / "outside").write_bytes(b"secret")
    entry = dataclasses.asdict(manifest.file_digest(folder.parent / "outside"))
    edit(folder, put("files", name, value=entry))
    assert any(line.startswith(f"files lists {name!r}; only plain names") for line in faults(folder))


@pytest.mark.parametrize("name", FILES)
def test_a_required_file_that_the_manifest_does_not_list_is_refused(folder: Path, name: str) -> None:
    edit(folder, lambda content: content["files"].pop(name))
    assert f"files does not list {name}" in faults(folder)


def test_all_faults_are_in_one_message(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "extra").touch()
    (folder / "encoder.onnx").write_bytes(b"")
    edit(folder, put("precision", value="int4"))
    edit(folder, put("alignment_shift", value=9))
    with pytest.raises(InvalidBundle, match="not a usable bundle, 5 fault") as caught:
        contents.read(folder)
    for part in (
        "README.md is missing",
        "extra is in the folder",
        "encoder.onnx has 0",
        "'int4'",
        "alignment_shift is 9",
    ):
        assert part in str(caught.value)


def test_wrong_types_and_unknown_keys_are_reported_together(folder: Path) -> None:
    edit(folder, put("colour", value="blue"))
    edit(folder, put("version", value=2))
    edit(folder, put("sizes", "hidden", value="x"))
    assert len(faults(folder)) == 3


def test_the_writer_refuses_what_the_reader_would(folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(InvalidBundle, match="must be 64 lower-case"):
        manifest.write(folder, replace(described(folder), files={"x": FileDigest("no", 3)}))
    with pytest.raises(InvalidBundle, match="this code writes 2"):
        manifest.write(folder, replace(described(folder), format_version=1))
    assert (folder / "manifest.json").read_bytes() == before


def test_equal_manifests_are_equal_bytes_whatever_the_order_of_keys(folder: Path) -> None:
    first = described(folder)
    turned = replace(first, sizes=dict(reversed(first.sizes.items())), files=dict(reversed(first.files.items())))
    assert manifest.digest(first) == manifest.digest(turned)
