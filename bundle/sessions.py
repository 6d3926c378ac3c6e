"""How the graphs must be fed and run so that exporter and service get the same bits (docs/decisions/0005).

Nothing here imports ONNX Runtime: it says what to tell it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

SOURCE_MULTIPLE = 16

_PROCESSOR = Path("/proc/cpuinfo")
_EXACT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8"})


def padded(length: int) -> int:
    """Return the number of source columns a graph is run with for a longest source of ``length`` tokens.

    Products whose inner dimension is the source axis are blocked alike only on multiples of 16.
    """
    return -(-length // SOURCE_MULTIPLE) * SOURCE_MULTIPLE


def encoder_inputs(sources: Sequence[Sequence[int]], pad: int) -> dict[str, Int[np.ndarray, "..."]]:
    """Return the inputs of the encoder graph for sentences given as ids, end of sentence included."""
    lengths = np.array([len(source) for source in sources], np.int64)
    source_ids = np.full((len(sources), padded(int(lengths.max()))), pad, np.int64)
    for row, source in zip(source_ids, sources, strict=True):
        row[: len(source)] = source
    return {"source_ids": source_ids, "source_lengths": lengths}


def own_states(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the step graph's inputs for states ``[batch beam size]`` that each hypothesis goes on from itself."""
    batch, beam = next(iter(state.values())).shape[:2]
    rows = {name: tensor.reshape(batch * beam, -1) for name, tensor in state.items()}
    return rows | {"state_rows": np.arange(batch * beam).reshape(batch, beam)}


def session_entries(processor: Path = _PROCESSOR) -> dict[str, str]:
    """Return the configuration entries of a session.

    Waiting threads do not spin: they would take the processor from whoever else has work. On x86 processors without
    VNNI, sums of two 8-bit products are cut to 16 bits unless ONNX Runtime is told to be exact, at half the speed.
    Where the processor does not tell (no ``/proc/cpuinfo``), it is taken to be exact.
    """
    # Whatever a file looks like, it is read as what was looked at before: ONNX, and not the runtime's own format.
    entries = {"session.intra_op.allow_spinning": "0", "session.load_model_format": "ONNX"}
    text = processor.read_text() if processor.is_file() else ""
    flags = {flag for line in text.splitlines() if line.startswith("flags") for flag in line.split()}
    if flags and not flags & _EXACT_PRODUCTS:
        entries["session.x64quantprecision"] = "1"
    return entries
