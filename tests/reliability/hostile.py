"""Bundles that somebody might send: a good one with something wrong in it, sealed anew so that its digests fit.

Every kind of damage is a function that changes a bundle's folder by a source of randomness; equal seeds, equal bundles.
"""

import copy
import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from safetensors.numpy import save_file
from sentencepiece import sentencepiece_model_pb2 as sentencepiece_pb

from bundle import manifest as manifests
from bundle import tables
from bundle.manifest import MANIFEST_FILE, TABLES_FILE, TablesInfo

Damage = Callable[[Path, random.Random], None]

GRAPHS = ("encoder.onnx", "decoder_step.onnx")
TOKENIZER = "tokenizer.model"
_NUMBERS = (0, 1, -1, 2, 3, 7, 255, 2**15, 2**16, 2**31 - 1, 2**31, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1e-45, 1e38, -1e38, float("nan"), float("inf"), float("-inf"))
_TEXTS = ("", "a" * 70_000, "\0", "../../etc/passwd", "/dev/zero", "é" * 50, "%s%n", "en-fr", "float32", "ai.onnx.ml")
_OPERATORS = (
    *("Loop", "If", "Scan", "Expand", "Tile", "Range", "ConstantOfShape", "OneHot", "Reshape", "Gather", "GatherND"),
    *("ScatterND", "Pad", "Resize", "Einsum", "MatMul", "Conv", "GRU", "LSTM", "TopK", "NonZero", "Unique", "Identity"),
    *("RandomNormal", "StringNormalizer", "SequenceAt", "Optional", "CumSum", "Softmax", "Transpose", "NoSuchOperator"),
)


def sealed(folder: Path) -> None:
    """Write the digests of the files of ``folder`` into its manifest, whatever else is wrong with that."""
    content = json.loads((folder / MANIFEST_FILE).read_bytes())
    for name in content["files"]:
        if (folder / name).is_file():
            digest = manifests.file_digest(folder / name)
            content["files"][name] = {"sha256": digest.sha256, "size_bytes": digest.size_bytes}
    (folder / MANIFEST_FILE).write_text(json.dumps(content))


# ------------------------------------------------------------------------------------------------- the manifest


def manifest_values(folder: Path, chance: random.Random) -> None:
    """Change one to three values of the manifest."""
    content = json.loads((folder / MANIFEST_FILE).read_bytes())
    for _ in range(chance.randint(1, 3)):
        places = list(_places(content)) or [({"": 0}, "")]
        container, key = chance.choice(places)
        what = chance.randrange(4)
        if what == 0 and isinstance(container, dict):
            del container[key]
        elif what == 1 and isinstance(container, dict):
            container[chance.choice(_TEXTS)[:50]] = container[key]
        elif what == 2:
            other, place = chance.choice(places)
            container[key] = copy.deepcopy(other[place])
        else:
            container[key] = chance.choice([*_NUMBERS, 2**64, 1e300, *_TEXTS, None, True, [], {}, [[]] * 3, {"a": {}}])
    (folder / MANIFEST_FILE).write_text(json.dumps(content))


def manifest_text(folder: Path, chance: random.Random) -> None:
    """Change the manifest as text, so that it is no JSON, or JSON that few would write."""
    file = folder / MANIFEST_FILE
    text = file.read_text()
    place = chance.randrange(len(text))
    inserted = chance.choice(
        [
            *("NaN", "-Infinity", "1e999", "9" * 5000, "-", '"\\ud800"', "\ufeff", "\0", "{", "]", ",", '"'),
            *("[" * 100_000, '{"a":' * 50_000, '"a": 1, "a": 2,', '"format_version": 2,', " " * 2_000_000, "1.5"),
        ]
    )
    cut = chance.choice([0, 0, 1, 10])
    if chance.random() < 0.3:  # where a value stands, so that the rest stays JSON
        place = text.index(": ", place % (len(text) - 200)) + 2
        cut = len(text[place:].split("\n")[0].rstrip(",{["))
    file.write_text(text[:place] + inserted + text[place + cut :])


def manifest_bytes(folder: Path, chance: random.Random) -> None:
    """Flip bits of the manifest, cut it, or put bytes in."""
    _damage_bytes(folder / MANIFEST_FILE, chance)


# ---------------------------------------------------------------------------------------------------- the graphs


def graph_fields(folder: Path, chance: random.Random) -> None:
    """Change one to three fields of a graph, any of protobuf's."""
    file = folder / chance.choice(GRAPHS)
    model = onnx.load_from_string(file.read_bytes())
    for _ in range(chance.randint(1, 3)):
        _change_field(model, chance)
    file.write_bytes(model.SerializeToString())
    sealed(folder)


def graph_nodes(folder: Path, chance: random.Random) -> None:
    """Change what a graph does: operators, their inputs, attributes and weights, or what it takes from outside."""
    file = folder / chance.choice(GRAPHS)
    model = onnx.load_from_string(file.read_bytes())
    nodes, weights = model.graph.node, model.graph.initializer
    node, weight = chance.choice(nodes), chance.choice(weights)
    names = [name for each in nodes for name in (*each.input, *each.output)]
    what = chance.randrange(12)
    if what == 0:
        node.op_type = chance.choice(_OPERATORS)
    elif what == 1:
        node.domain = chance.choice(["com.microsoft", "ai.onnx.ml", "evil", "ai.onnx"])
    elif what == 2 and node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice(names)
    elif what == 3:
        nodes.remove(node)
    elif what == 4:
        nodes.add().CopyFrom(node)
    elif what == 5:
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=chance.choice(_TEXTS[3:5]))
    elif what == 6 and weight.dims:
        weight.dims[chance.randrange(len(weight.dims))] = chance.choice(_NUMBERS)
    elif what == 7:
        values = np.frombuffer(weight.raw_data, np.uint8).copy()
        values[: chance.randint(1, len(values))] = chance.choice([0, 0x7F, 0xFF])
        weight.raw_data = values.tobytes()
    elif what == 8:
        weight.data_type = chance.randrange(24)
    elif what == 9:
        attribute = node.attribute.add(name=chance.choice(["axis", "to", "hidden_size", "perm", "body"]), type=2)
        attribute.i = chance.choice(_NUMBERS)
    elif what == 10:
        for each in (model.graph.output, model.graph.input)[chance.randrange(2)]:
            each.type.tensor_type.elem_type = chance.randrange(1, 17)
    else:
        _nest(model.graph, chance.choice([2, 30]))
    file.write_bytes(model.SerializeToString())
    sealed(folder)


def graph_bombs(folder: Path, chance: random.Random) -> None:
    """Let a graph ask for more memory or time than there is."""
    file = folder / chance.choice(GRAPHS)
    model = onnx.load_from_string(file.read_bytes())
    graph, size = model.graph, chance.choice([2**28, 2**32, 2**40, 2**62])
    bomb = chance.choice(["constant", "range", "tile", "loop"])
    first = graph.node[0].input[-1] if graph.node[0].input else graph.input[0].name
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([size], np.int64), "bomb_size"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(size, np.int64), "bomb_scalar"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(1, np.int64), "bomb_one"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.int64), "bomb_zero"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "bomb_true"))
    if bomb == "constant":
        made = onnx.helper.make_node("ConstantOfShape", ["bomb_size"], ["bomb"])
    elif bomb == "range":
        made = onnx.helper.make_node("Range", ["bomb_zero", "bomb_scalar", "bomb_one"], ["bomb"])
    elif bomb == "tile":
        made = onnx.helper.make_node("Tile", ["bomb_size", "bomb_size"], ["bomb"])
    else:
        body = onnx.helper.make_graph(
            [
                onnx.helper.make_node("Identity", ["go_on"], ["again"]),
                onnx.helper.make_node("Add", ["sum", "sum"], ["more"]),
            ],
            "body",
            [
                onnx.helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
                onnx.helper.make_tensor_value_info("go_on", onnx.TensorProto.BOOL, []),
                onnx.helper.make_tensor_value_info("sum", onnx.TensorProto.INT64, []),
            ],
            [
                onnx.helper.make_tensor_value_info("again", onnx.TensorProto.BOOL, []),
                onnx.helper.make_tensor_value_info("more", onnx.TensorProto.INT64, []),
            ],
        )
        made = onnx.helper.make_node("Loop", ["bomb_scalar", "bomb_true", "bomb_one"], ["bomb"], body=body)
    used = onnx.helper.make_node("ReduceMin", ["bomb"], ["bomb_least"], keepdims=0)
    zero = onnx.helper.make_node("Mul", ["bomb_least", "bomb_zero"], ["bomb_nothing"])
    cast = onnx.helper.make_node("CastLike", ["bomb_nothing", first], ["bomb_cast"])
    added = onnx.helper.make_node("Add", [first, "bomb_cast"], ["bomb_added"])
    graph.node[0].input[-1] = "bomb_added"
    for place, each in enumerate([made, used, zero, cast, added]):
        graph.node.insert(place, each)
    file.write_bytes(model.SerializeToString())
    sealed(folder)


def graph_bytes(folder: Path, chance: random.Random) -> None:
    """Flip bits of a graph, cut it, or put bytes in."""
    _damage_bytes(folder / chance.choice(GRAPHS), chance)
    sealed(folder)


# ------------------------------------------------------------------------------------------------- the tokenizer


def tokenizer_fields(folder: Path, chance: random.Random) -> None:
    """Change one to three fields of the SentencePiece model."""
    file = folder / TOKENIZER
    model = sentencepiece_pb.ModelProto.FromString(file.read_bytes())  # type: ignore[attr-defined]
    for _ in range(chance.randint(1, 3)):
        if chance.random() < 0.3:
            rules = bytearray(model.normalizer_spec.precompiled_charsmap) or bytearray(8)
            for _ in range(chance.choice([1, 8, 200])):
                place = chance.randrange(len(rules) if chance.random() < 0.5 else min(64, len(rules)))
                rules[place] = chance.randrange(256)
            model.normalizer_spec.precompiled_charsmap = bytes(rules[: chance.choice([len(rules), 3, 5000])])
        else:
            _change_field(model, chance)
    file.write_bytes(model.SerializePartialToString())
    sealed(folder)


def tokenizer_bytes(folder: Path, chance: random.Random) -> None:
    """Flip bits of the SentencePiece model, cut it, or put bytes in."""
    _damage_bytes(folder / TOKENIZER, chance)
    sealed(folder)


# ---------------------------------------------------------------------------------------------------- the tables


def tables_header(folder: Path, chance: random.Random) -> None:
    """Change the header of the safetensors file: lengths, types, shapes, places, notes."""
    file = folder / TABLES_FILE
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    what = chance.randrange(6)
    entry = header[chance.choice([name for name in header if name != "__metadata__"])]
    if what == 0:
        entry["dtype"] = chance.choice(["F32", "BOOL", "F64", "I64", "U8", "F8_E4M3", "BF16", "X", None, 3])
    elif what == 1:
        entry["shape"][chance.randrange(len(entry["shape"]))] = chance.choice(_NUMBERS)
    elif what == 2:
        entry["data_offsets"][chance.randrange(2)] = chance.choice(_NUMBERS)
    elif what == 3:
        header["__metadata__"] = chance.choice(
            [{}, {"interlinear": "{}"}, {"interlinear": "[" * 5000}, [], "x", {"a": 1}]
        )
    elif what == 4:
        container, key = chance.choice(list(_places(header)))
        container[key] = chance.choice([*_NUMBERS, *_TEXTS, None, [], {}])
    text = json.dumps(header).encode()
    length = chance.choice(_NUMBERS) % 2**64 if what == 5 else len(text)
    file.write_bytes(struct.pack("<Q", length) + text + data)
    sealed(folder)


def tables_values(folder: Path, chance: random.Random) -> None:
    """Write tables that fit their digests and nothing else: numbers that are none, other shapes, other counts."""
    found = tables.read(folder / TABLES_FILE)
    side = found.encoder if chance.random() < 0.5 else found.decoder
    array = chance.choice(["temporal", "temporal_counts", "input_driven", "input_counts"])
    values = getattr(side, array).copy()
    what = chance.randrange(5)
    if what == 0 and values.dtype == np.float16:
        values.flat[chance.randrange(values.size)] = chance.choice([np.nan, np.inf, -np.inf])
    elif what == 1:
        values = values[: chance.randrange(len(values))]
    elif what == 2:
        values = np.concatenate([values, values])
    elif what == 3:
        values = values.reshape(-1)
    else:
        values[:] = values.max() if values.dtype == np.float16 else 2**32 - 1
    changed = replace(side, **{array: values})
    spoiled = replace(found, encoder=changed) if side is found.encoder else replace(found, decoder=changed)
    arrays = {
        f"{name}_{array}": np.ascontiguousarray(getattr(side, array))
        for name, side in (("encoder", spoiled.encoder), ("decoder", spoiled.decoder))
        for array in ("temporal", "temporal_counts", "input_driven", "input_counts")
    }
    origin = {"id": spoiled.id, "corpus": spoiled.corpus, "sentences": spoiled.sentences}
    notes = {**origin, "minimum_count": spoiled.minimum_count, "digest": spoiled.digest}
    save_file(arrays, folder / TABLES_FILE, {"interlinear": json.dumps(notes)})
    manifest = manifests.read(folder)
    info = TablesInfo(spoiled.id, spoiled.digest, spoiled.corpus, spoiled.sentences, spoiled.minimum_count)
    manifests.write(folder, replace(manifest, files=manifests.file_digests(folder), tables=info))


def tables_bytes(folder: Path, chance: random.Random) -> None:
    """Flip bits of the tables, cut them, or put bytes in."""
    _damage_bytes(folder / TABLES_FILE, chance)
    sealed(folder)


# ---------------------------------------------------------------------------------------------------- the folder


def folder_entries(folder: Path, chance: random.Random) -> None:
    """Put something else where a file should be, or something that should not be there."""
    name = chance.choice([*GRAPHS, TOKENIZER, TABLES_FILE, "README.md", MANIFEST_FILE])
    file, kept = folder / name, folder.parent / f"{folder.name}.kept"
    what = chance.randrange(9)
    if what in (0, 1, 2, 3):
        file.rename(kept)
    if what == 0:
        os.mkfifo(file)
    elif what == 1:
        file.symlink_to(kept)  # to the very file, which is still a link
    elif what == 2:
        file.symlink_to(chance.choice(["/dev/zero", "/etc/passwd", name, "/proc/self/mem"]))
    elif what == 3:
        file.mkdir()
    elif what == 4:
        for number in range(chance.choice([1, 300])):
            (folder / f"extra.{number}").touch()
    elif what == 5:
        os.truncate(file, chance.choice([2**20, 2**33]))  # a file that is long, and takes no room
        with open(folder / MANIFEST_FILE, "rb") as manifest:
            content = json.loads(manifest.read(1 << 20).rstrip(b"\0") or b"{}")
        if name != MANIFEST_FILE:
            content["files"][name]["size_bytes"] = file.stat().st_size
            (folder / MANIFEST_FILE).write_text(json.dumps(content))
    elif what == 6:
        content = json.loads((folder / MANIFEST_FILE).read_bytes())
        entry = content["files"]["README.md"]
        content["files"][chance.choice([*_TEXTS[2:5], "a/b", ".", "..", ".hidden", MANIFEST_FILE])] = entry
        (folder / MANIFEST_FILE).write_text(json.dumps(content))
    elif what == 7:
        (folder / "README.md").write_bytes(
            bytes(chance.randrange(128, 256) for _ in range(chance.choice([50, 2_000_000])))
        )
        sealed(folder)
    else:
        file.unlink()


# --------------------------------------------------------------------------------------- what is not sealed anew


def unsealed(folder: Path, chance: random.Random) -> None:
    """Cut a file, or flip one bit of it, at a random place; the digests stay those of the good bundle."""
    names = [*GRAPHS, TOKENIZER, TABLES_FILE, "README.md"]
    file = folder / chance.choices(names, [(folder / name).stat().st_size for name in names])[0]
    content = bytearray(file.read_bytes())
    place = chance.randrange(len(content))
    if chance.random() < 0.5:
        content[place] ^= 1 << chance.randrange(8)
        file.write_bytes(content)
    else:
        file.write_bytes(content[:place])


DAMAGES: dict[str, tuple[Damage, int]] = {  # each with how often it comes among a hundred
    "manifest, values": (manifest_values, 16),
    "manifest, text": (manifest_text, 8),
    "manifest, bytes": (manifest_bytes, 4),
    "graphs, protobuf fields": (graph_fields, 16),
    "graphs, operators and weights": (graph_nodes, 14),
    "graphs, bombs": (graph_bombs, 2),
    "graphs, bytes": (graph_bytes, 8),
    "tokenizer, protobuf fields": (tokenizer_fields, 10),
    "tokenizer, bytes": (tokenizer_bytes, 6),
    "tables, header": (tables_header, 5),
    "tables, values": (tables_values, 4),
    "tables, bytes": (tables_bytes, 3),
    "folder": (folder_entries, 4),
}


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield container and key of every value in a JSON document."""
    for key, part in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
        yield value, key
        if isinstance(part, dict | list):
            yield from _places(part)


def _damage_bytes(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    what = chance.randrange(4)
    place = chance.randrange(len(content)) if chance.random() < 0.6 else chance.randrange(min(400, len(content)))
    if what == 0:
        for _ in range(chance.choice([1, 1, 4, 64])):
            content[chance.randrange(place, len(content))] ^= 1 << chance.randrange(8)
    elif what == 1:
        del content[place:]
    elif what == 2:
        content[place:place] = chance.randbytes(chance.choice([1, 16, 4096]))
    else:
        content[place : place + 8] = chance.choice([b"\xff" * 8, b"\0" * 8, chance.randbytes(8)])
    file.write_bytes(content)


def _messages(message: Message, depth: int = 0) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE and depth < 8:
            for part in value if field.is_repeated else [value]:
                yield from _messages(part, depth + 1)


def _change_field(root: Message, chance: random.Random) -> None:
    """Change one field of one message in ``root``: another value, none, twice, or one that was not there."""
    message: Any = chance.choice(list(_messages(root)))
    field = chance.choice(message.DESCRIPTOR.fields)
    if chance.random() < 0.7 and message.ListFields():
        field = chance.choice(message.ListFields())[0]
    if field.is_repeated:
        values = getattr(message, field.name)
        if len(values) and chance.random() < 0.6:
            del values[chance.randrange(len(values))]
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            added = values.add()
            if len(values) > 1:
                added.CopyFrom(values[chance.randrange(len(values) - 1)])
        else:
            values.append(_value(field, chance))
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        message.ClearField(field.name) if chance.random() < 0.5 else getattr(message, field.name).SetInParent()
    elif chance.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _value(field, chance))


def _value(field: FieldDescriptor, chance: random.Random) -> Any:
    """Return a value that ``field`` can hold and nobody expects."""
    if field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_INT32):
        bits = 63 if field.cpp_type == FieldDescriptor.CPPTYPE_INT64 else 31
        return chance.choice([number for number in _NUMBERS if -(2**bits) <= number < 2**bits])
    if field.cpp_type in (FieldDescriptor.CPPTYPE_UINT64, FieldDescriptor.CPPTYPE_UINT32):
        return chance.choice([number for number in _NUMBERS if 0 <= number < 2**32])
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return chance.choice(_FLOATS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return chance.random() < 0.5
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        assert field.enum_type is not None
        return chance.choice([value.number for value in field.enum_type.values])
    text = chance.choice(_TEXTS)
    return text if field.type == FieldDescriptor.TYPE_STRING else text.encode() + chance.randbytes(8)


def _nest(graph: onnx.GraphProto, levels: int) -> None:
    """Put graphs inside of graphs."""
    inner = graph
    for _ in range(levels):
        node = inner.node.add(op_type="If", name="nested")
        node.input.append("nothing")
        node.output.append("nested")
        attribute = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        inner = attribute.g
