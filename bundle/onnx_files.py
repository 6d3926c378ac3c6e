"""What an ONNX file may be made of: operators of the standard and a few more, and all its weights inside it.

The file is walked as protobuf, without ONNX or a runtime: it must be known to be harmless before either reads it. Field
numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, IR version 10).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

STANDARD_DOMAINS = ("", "ai.onnx")
RUNTIME_DOMAIN = "com.microsoft"  # ONNX Runtime's own operators
RUNTIME_OPERATORS = frozenset({"MatMulIntegerToFloat"})  # those of them that exporters write
_MAX_DEPTH = 8  # graphs inside nodes of graphs
_MAX_NODES = 100_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_EXTERNAL = 1  # TensorProto.DataLocation


@dataclass(frozen=True)
class _Kind:
    """What to look at in a message.

    Attributes:
        parts: Kinds of the messages in it, by field number.
        domains: Field numbers that hold the domain of an operator.
        operators: Field numbers that hold its name.
        forbidden: Field numbers that must not be there, each with the reason.
        locations: Field numbers that say where a tensor's data is.
    """

    parts: Mapping[int, str] = field(default_factory=dict)
    domains: tuple[int, ...] = ()
    operators: tuple[int, ...] = ()
    forbidden: Mapping[int, str] = field(default_factory=dict)
    locations: tuple[int, ...] = ()


_OUTSIDE = "a tensor whose data is in another file; a bundle's graph holds all of its weights"
_KINDS = {
    "model": _Kind(
        parts={7: "graph", 8: "opset"},
        forbidden={
            20: "training graphs; a bundle only answers",
            25: "functions of its own; only standard operators run",
        },
    ),
    "opset": _Kind(domains=(1,)),
    "graph": _Kind(parts={1: "node", 5: "tensor", 15: "sparse"}),
    "node": _Kind(parts={5: "attribute"}, domains=(7,), operators=(4,)),
    "attribute": _Kind(parts={5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"}),
    "sparse": _Kind(parts={1: "tensor", 2: "tensor"}),
    "tensor": _Kind(forbidden={13: _OUTSIDE}, locations=(14,)),
}


def onnx_faults(content: bytes) -> tuple[str, ...]:
    """Return what makes ``content`` no ONNX model that a bundle may hold, one sentence a kind of fault, sorted.

    Whether its operators fit together is for the runtime to say.
    """
    walk = _Walk()
    try:
        walk.message("model", memoryview(content), 0)
    except IndexError:
        walk.faults.add("it was cut")
    except ValueError as error:
        walk.faults.add(f"it cannot be read: {error}")
    if not walk.graphs:
        walk.faults.add("it holds no graph")
    return tuple(sorted(walk.faults))


class _Walk:
    """One pass over a model."""

    def __init__(self) -> None:
        self.faults: set[str] = set()
        self.graphs = 0
        self._nodes = 0

    def message(self, name: str, content: memoryview, depth: int) -> None:
        """Look at a message of kind ``name`` and at those in it.

        Raises:
            IndexError: It was cut.
            ValueError: It is malformed, nests too deeply or holds too many nodes.
        """
        kind = _KINDS[name]
        self.graphs += name == "graph"
        self._nodes += name == "node"
        depth += name == "graph"
        if depth > _MAX_DEPTH or self._nodes > _MAX_NODES:
            raise ValueError(f"graphs nest deeper than {_MAX_DEPTH}, or there are more than {_MAX_NODES} nodes")
        domains, operators = set[str](), set[str]()  # a field may come twice, and readers differ in which one holds
        for number, value in _fields(content):
            if number in kind.forbidden:
                self.faults.add(f"it has {kind.forbidden[number]}")
            if number in kind.locations and isinstance(value, int) and value & 0xFFFFFFFF == _EXTERNAL:
                self.faults.add(f"it has {_OUTSIDE}")
            if isinstance(value, int):
                continue
            if number in kind.domains:
                domains.add(str(value, "utf-8"))
            if number in kind.operators:
                operators.add(str(value, "utf-8"))
            if number in kind.parts:
                self.message(kind.parts[number], value, depth)
        for domain in domains.difference(STANDARD_DOMAINS):
            if domain != RUNTIME_DOMAIN:
                self.faults.add(f"it has operators of the domain {domain[:40]!r}; only those of the standard run")
            elif others := operators - RUNTIME_OPERATORS:
                self.faults.add(f"it has the operator {min(others)[:40]!r} of the domain {domain!r}, not to be run")


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field of a message: an integer, or the bytes of anything else."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        if key >> 32:  # some readers take the lowest 32 bits, and would see a field where others see none
            raise ValueError("the number of a field takes more than 32 bits")
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, place = _varint(content, place)
            yield number, value
            continue
        if wire == _BYTES:
            width, place = _varint(content, place)
        elif wire in _WIDTHS:
            width = _WIDTHS[wire]
        else:
            raise ValueError(f"wire type {wire} is none of protobuf's that are in use")
        if place + width > len(content):
            raise IndexError
        yield number, content[place : place + width]
        place += width


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    """Return the integer at ``place`` and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("an integer takes more than ten bytes")
