"""Memory of a device that graphs read and write in place: pools of fixed addresses, and the calls bound to them.

A pool has room for the tensors of ``slots`` sentences, taken or free. ONNX Runtime's Python interface knows no part of
a tensor, but whatever is bound to a call may be given by its address; so parts of a pool are bound by theirs. The
device may be ``cpu``: that is how this is tested where there is no GPU.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bundle.manifest import Manifest, Tensor
from bundle.sessions import SOURCE_MULTIPLE
from bundle.step import WITH_EMISSION

ATTENTION = ("attention_scores", "attention_weights", "attention_query")
_TRACED = (*ATTENTION, "emission_scores")
_ALIGNMENT = 256  # bytes, of whatever a kernel reads or writes


class Bucket(NamedTuple):
    """The sizes of a pool: hypotheses of a sentence, sentences, and source positions of each."""

    beam_size: int
    slots: int
    columns: int


class Wish(NamedTuple):
    """What a call of the step is to return; with the pool and its half, that fixes every address."""

    candidates: int
    attention: bool
    whole_vocabulary: bool


def bucket_for(beam_size: int, sentences: int, longest: int) -> Bucket:
    """Return the smallest bucket with room for ``sentences``, the longest of them of ``longest`` tokens.

    >>> bucket_for(beam_size=4, sentences=5, longest=33)
    Bucket(beam_size=4, slots=8, columns=64)
    """
    return Bucket(beam_size, _power_of_two(sentences), SOURCE_MULTIPLE * _power_of_two(-(-longest // SOURCE_MULTIPLE)))


class Device:
    """Where a bundle's graphs run.

    Attributes:
        manifest: Of the bundle.
        idle: Pools that nobody uses, by bucket. They are kept because the calls recorded on them cannot be forgotten.
    """

    def __init__(
        self,
        runtime: Any,
        sessions: Mapping[str, Any],
        manifest: Manifest,
        name: str,
        note: Callable[[str, float], None],
    ) -> None:
        """Make ``sessions`` of ``runtime``, by the names of the graphs, usable in place.

        Args:
            runtime: ONNX Runtime itself.
            sessions: Those on ``name``; where the step's records its calls as CUDA graphs, its options say so.
            manifest: What the bundle says about itself.
            name: ``cpu`` or ``cuda:N``.
            note: Told of each call the graph's name and the seconds it took, transfers included.
        """
        self.manifest = manifest
        self.idle: defaultdict[Bucket, list[Pool]] = defaultdict(list)
        kind, _, number = name.partition(":")
        self._runtime, self._sessions, self._note = runtime, sessions, note
        self._place = kind, int(number or 0)
        step = sessions["decoder_step"]
        self.captures = step.get_provider_options().get("CUDAExecutionProvider", {}).get("enable_cuda_graph") == "1"
        optional = {value.name for value in step.get_overridable_initializers()}
        self.emission = {name: value for name, value in WITH_EMISSION.items() if name in optional}
        self._options: list[Any] = []
        self._plain_options = self.run_options(captured=False)

    def run_options(self, captured: bool) -> Any:
        """Return how to make calls: as they are, or, ``captured``, recorded as a graph that no other call is."""
        options = self._runtime.RunOptions()
        if self.captures:
            options.add_run_config_entry("gpu_graph_id", str(len(self._options)) if captured else "-1")
        self._options.append(options)
        return options

    def terminate(self) -> None:
        """Ask the call that is being made to end, and fail; so do later ones, but for those recorded."""
        for options in self._options:
            options.terminate = True

    def zeros(self, size: int) -> Any:
        """Return ``size`` bytes of memory, all zero."""
        return self._runtime.OrtValue.ortvalue_from_numpy(np.zeros(max(size, 1), np.uint8), *self._place)

    def view(self, address: int, dtype: Any, shape: Sequence[int]) -> Any:
        """Return what lies at ``address``, to be read (``numpy``) and written (``update_inplace``)."""
        session = self._sessions["encoder"]
        binding = session.io_binding()  # what is bound as an output can be had as a value, whatever is in it
        binding.bind_output(session.get_outputs()[0].name, *self._place, dtype, list(shape), address)
        return binding.get_outputs()[0]

    def call(self, graph: str) -> "Call":
        """Return a call of ``graph`` to which nothing is bound yet."""
        return Call(self._runtime, self._sessions[graph].io_binding(), self._place)

    def run(self, graph: str, call: "Call", options: Any = None) -> None:
        """Make a call and wait for its end."""
        self._sessions[graph].run_with_iobinding(call.binding, options or self._plain_options)

    def timed(self, graph: str, started: float) -> None:
        """Tell that a call of ``graph``, begun at ``started``, is over."""
        self._note(graph, time.perf_counter() - started)


class Call:
    """What a call reads and writes, and where."""

    def __init__(self, runtime: Any, binding: Any, place: tuple[str, int]) -> None:
        self.binding, self._runtime, self._place = binding, runtime, place
        self._kept: list[np.ndarray] = []  # the runtime reads them where they are

    def read(self, name: str, dtype: Any, shape: Sequence[int], address: int) -> None:
        """Let the graph read an input at ``address``."""
        self.binding.bind_input(name, *self._place, dtype, list(shape), address)

    def write(self, name: str, dtype: Any, shape: Sequence[int], address: int) -> None:
        """Let the graph write an output at ``address``."""
        self.binding.bind_output(name, *self._place, dtype, list(shape), address)

    def take(self, name: str, array: np.ndarray) -> None:
        """Let the graph read an array of this process."""
        self._kept.append(array)
        self.binding.bind_ortvalue_input(name, self._runtime.OrtValue.ortvalue_from_numpy(array))

    def give(self, name: str) -> Callable[[], np.ndarray]:
        """Let the graph write an output into this process; return what fetches it after the call."""
        self.binding.bind_output(name)
        place = len(self.binding.get_outputs()) - 1
        return lambda: np.asarray(self.binding.get_outputs()[place].numpy())


class Pool:
    """The tensors of one bucket, zero at first.

    The state is there twice: a step reads one half and writes the other. A half has a row for each hypothesis, and
    then one for each slot, where the encoder leaves the first state of a sentence.

    Attributes:
        bucket: Its sizes.
        rows: Of a half of the state.
    """

    def __init__(self, device: Device, bucket: Bucket) -> None:
        self.bucket = bucket
        self.hypotheses = bucket.slots * bucket.beam_size
        self.rows = self.hypotheses + bucket.slots
        self._device = device
        manifest = device.manifest
        read = {tensor.name for tensor in manifest.graphs["decoder_step"].inputs}
        self.encoder_side = {t.name: t for t in manifest.graphs["encoder"].outputs if t.name in read}
        self._side = {name: device.zeros(_bytes(self._slot(name)) * bucket.slots) for name in self.encoder_side}
        self._state = [
            {tensor.name: device.zeros(4 * self.rows * tensor.size) for tensor in manifest.state} for _ in range(2)
        ]
        self._indices = device.zeros(8 * (2 * self.hypotheses + bucket.slots))
        self._indices_view = device.view(self._indices.data_ptr(), np.int64, [2 * self.hypotheses + bucket.slots])
        self._steps: dict[tuple[int, Wish], _Step] = {}

    def encode(self, slot: int, inputs: Mapping[str, Int[np.ndarray, "..."]], half: int) -> None:
        """Encode sentences into the slots from ``slot`` on; their first states go into a half of the state.

        Args:
            slot: Where the first of them goes.
            inputs: Of the encoder, as many columns as the pool has.
            half: Which of the two.
        """
        started, call, sentences = time.perf_counter(), self._device.call("encoder"), len(inputs["source_lengths"])
        for name, array in inputs.items():
            call.take(name, array)
        for name in self.encoder_side:
            call.write(name, np.float32, (sentences, *self._slot(name)), self._side_address(name, slot))
        for tensor in self._device.manifest.state:
            address = self._state_address(tensor.name, half, self.hypotheses + slot)
            call.write(f"initial_{tensor.name}", np.float32, (sentences, tensor.size), address)
        self._device.run("encoder", call)
        self._device.timed("encoder", started)

    def encode_apart(self, slots: Sequence[int], inputs: Mapping[str, Int[np.ndarray, "..."]], half: int) -> None:
        """Do the same for ``slots`` that lie apart, by way of this process's memory: one call is worth many copies."""
        started, call = time.perf_counter(), self._device.call("encoder")
        for name, array in inputs.items():
            call.take(name, array)
        side = {name: call.give(name) for name in self.encoder_side}
        states = {tensor.name: call.give(f"initial_{tensor.name}") for tensor in self._device.manifest.state}
        self._device.run("encoder", call)
        for name, fetch in side.items():
            for slot, array in zip(slots, fetch(), strict=True):
                self._device.view(self._side_address(name, slot), np.float32, array.shape).update_inplace(array)
        for name, fetch in states.items():
            for slot, array in zip(slots, fetch(), strict=True):
                address = self._state_address(name, half, self.hypotheses + slot)
                self._device.view(address, np.float32, array.shape).update_inplace(array)
        self._device.timed("encoder", started)

    def encoder_side_of(self, name: str, slot: int, length: int) -> Float[np.ndarray, "source size"]:
        """Return what the encoder made of one sentence."""
        shape = (length, *self._slot(name)[1:])
        return np.asarray(self._device.view(self._side_address(name, slot), np.float32, shape).numpy())

    def copied(self, half: int) -> dict[str, np.ndarray]:
        """Return everything: the encoder side by slot, the state of one half by row."""
        slots, state = self.bucket.slots, self._device.manifest.state
        views = {name: (self._side_address(name, 0), (slots, *self._slot(name))) for name in self.encoder_side}
        views |= {t.name: (self._state_address(t.name, half, 0), (self.rows, t.size)) for t in state}
        return {name: np.asarray(self._device.view(at, np.float32, to).numpy()) for name, (at, to) in views.items()}

    def fill(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Begin with ``arrays``: the first slots of the encoder side, the first rows of the first half of the state."""
        for name, array in arrays.items():
            address = self._side_address(name, 0) if name in self._side else self._state_address(name, 0, 0)
            self._device.view(address, np.float32, array.shape).update_inplace(np.ascontiguousarray(array))

    def step(
        self,
        indices: Int[np.ndarray, "..."],
        half: int,
        wish: Wish,
        given: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Make a step: one transfer there, one call, one transfer back.

        Args:
            indices: Previous token and row of the state of each hypothesis, then the length of each source.
            half: Of the state, to read; the other is written.
            wish: What to return.
            given: Inputs that have a default, to be taken from this process; their call is bound anew each time.

        Returns:
            Outputs by name, first axis the slots.
        """
        started = time.perf_counter()
        step = _Step(self._device, self, wish, half, given) if given else self._steps.get((half, wish))
        if step is None:
            step = self._steps[half, wish] = _Step(self._device, self, wish, half, {})
        self._indices_view.update_inplace(indices)
        results = step.run()
        self._device.timed("decoder_step", started)
        return results

    def bind(self, call: "Call", half: int) -> None:
        """Let a call of the step read this pool, and write the next state into the other half."""
        slots, beam_size, hypotheses = self.bucket.slots, self.bucket.beam_size, self.hypotheses
        start = self._indices.data_ptr()
        call.read("previous_token_ids", np.int64, (slots, beam_size), start)
        call.read("state_rows", np.int64, (slots, beam_size), start + 8 * hypotheses)
        call.read("source_lengths", np.int64, (slots,), start + 16 * hypotheses)
        for name in self.encoder_side:
            call.read(name, np.float32, (slots, *self._slot(name)), self._side_address(name, 0))
        for tensor in self._device.manifest.state:
            address = self._state_address(tensor.name, half, 0)
            call.read(tensor.name, np.float32, (self.rows, tensor.size), address)
            address = self._state_address(tensor.name, 1 - half, 0)
            call.write(f"next_{tensor.name}", np.float32, (slots, beam_size, tensor.size), address)

    def _slot(self, name: str) -> tuple[int, ...]:
        """Return the shape of one slot of a tensor of the encoder side."""
        return _shape(self.encoder_side[name], self._device.manifest, {"source": self.bucket.columns})[1:]

    def _side_address(self, name: str, slot: int) -> int:
        return int(self._side[name].data_ptr()) + _bytes(self._slot(name)) * slot

    def _state_address(self, name: str, half: int, row: int) -> int:
        size = next(tensor.size for tensor in self._device.manifest.state if tensor.name == name)
        return int(self._state[half][name].data_ptr()) + _bytes((size,)) * row


class _Step:
    """One way of making a step on a pool: everything is bound once, what it returns lies in one piece of memory."""

    def __init__(self, device: Device, pool: Pool, wish: Wish, half: int, given: Mapping[str, np.ndarray]) -> None:
        self._device = device
        self._options = device.run_options(captured=not given)
        self._call = device.call("decoder_step")
        self._call.take("candidates", np.array([wish.candidates]))
        pool.bind(self._call, half)
        for name, array in {**given, **(device.emission if wish.attention else {})}.items():
            self._call.take(name, array)
        names = ["candidate_token_ids", "candidate_log_probabilities"]
        names += _TRACED if wish.attention else ()
        names += ["log_probabilities"] if wish.whole_vocabulary else []
        sizes = {**pool.bucket._asdict(), "k": wish.candidates}
        axes = {"batch": sizes["slots"], "beam": sizes["beam_size"], "source": sizes["columns"], "k": sizes["k"]}
        self._parts: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]] = {}
        end = 0
        for tensor in device.manifest.graphs["decoder_step"].outputs:
            if tensor.name in names:
                part = end, np.dtype(tensor.dtype), _shape(tensor, device.manifest, axes)
                self._parts[tensor.name] = part
                end += -(-_bytes(part[2], part[1]) // _ALIGNMENT) * _ALIGNMENT
        self._results = device.zeros(end)
        for name, (begin, dtype, shape) in self._parts.items():
            self._call.write(name, dtype, shape, self._results.data_ptr() + begin)

    def run(self) -> dict[str, np.ndarray]:
        self._device.run("decoder_step", self._call, self._options)
        results = np.array(self._results.numpy())  # a copy: on a processor it would be a view of what is written next
        return {
            name: results[begin : begin + _bytes(shape, dtype)].view(dtype).reshape(shape)
            for name, (begin, dtype, shape) in self._parts.items()
        }


def _power_of_two(least: int) -> int:
    return int(1 << (least - 1).bit_length())


def _bytes(shape: Sequence[int], dtype: Any = np.float32) -> int:
    return math.prod(shape) * int(np.dtype(dtype).itemsize)


def _shape(tensor: Tensor, manifest: Manifest, axes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the sizes of a tensor, with 0 for an axis that neither ``axes`` nor the manifest names."""
    sizes = manifest.sizes | dict(axes)
    return tuple(sizes[axis] if axis in sizes else int(axis) if axis.isdecimal() else 0 for axis in tensor.axes)
