"""One bundle on one device: ``encode`` and ``step``.

Axes are those of the bundle's graphs: batch, beam, source, hidden, key, size. The source axis is padded to a multiple
of 16, always: with that, what a sentence is batched with does not change one bit of its result on the CPU.
"""

import hashlib
import importlib.metadata
import platform
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from bundle import contents
from bundle import manifest as manifests
from bundle.contents import Bundle
from bundle.errors import InvalidBundle
from bundle.manifest import Manifest
from bundle.search import EncodedBatch, StepOutput
from bundle.sessions import encoder_inputs
from bundle.step import WITH_EMISSION, GivenAttention
from service.decoder_state import Attended, DecoderState, HostState, Wanted
from service.device_memory import Device
from service.device_state import DeviceState, PendingSources
from service.errors import BundleRefused, DeviceUnavailable
from service.metrics import Metrics
from service.runtime import cuda_options, import_runtime, open_session, providers_for

_ENCODER_SIDE = ("encoder_states", "attention_keys", "emission_context")
_ATTENTION = ("attention_scores", "attention_weights", "attention_query")
_TRACED = (*_ATTENTION, "emission_scores")
_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


class Engine:
    """Runs the two graphs of one bundle, for any number of threads at a time.

    Attributes:
        manifest: What the bundle says about itself.
        takes_given_attention: Whether the decoder's step can be told what to attend to.
    """

    def __init__(self, bundle: Path | Bundle, device: str, threads: int, metrics: Metrics) -> None:
        """Load a bundle and run both graphs once.

        Args:
            bundle: Its folder, which is verified; or what was read of one, and then the folder is not looked at again.
            device: ``cpu`` or ``cuda:N``.
            threads: Threads of one call.
            metrics: Where run times and the model's identity go.

        Raises:
            BundleRefused: the bundle is missing or damaged, or its graphs are not what its manifest says.
            DeviceUnavailable: the device cannot be used, or the installed ONNX Runtime wheels exclude each other.
        """
        started = time.perf_counter()
        try:
            whole = bundle if isinstance(bundle, Bundle) else contents.read(bundle)
        except InvalidBundle as error:
            raise BundleRefused(str(error)) from error
        self.manifest = whole.manifest
        graphs = {f"{graph}.onnx": whole.files[f"{graph}.onnx"] for graph in manifests.GRAPHS}
        self._made_of = (replace(whole, files=graphs), device, threads, metrics)
        self._runtime = import_runtime()
        model = self.manifest.qualified_name
        self._run_seconds = {graph: metrics.runtime.run_seconds.labels(model, graph) for graph in manifests.GRAPHS}
        providers = providers_for(device, self._runtime.get_available_providers())
        if device != "cpu":
            if self.manifest.precision == "int8":  # its products have no kernel there
                raise DeviceUnavailable(
                    f"{model} is int8, which runs on the processor only; make a float16 bundle (--precision float16) "
                    f"for {device}, or set INTERLINEAR_DEVICE=cpu."
                )
            self._runtime.preload_dlls()
        self._sessions = {
            graph: open_session(self._runtime, whole, f"{graph}.onnx", providers, threads) for graph in manifests.GRAPHS
        }
        _check_graphs(self.manifest, self._sessions)
        optional = {value.name for value in self._sessions["decoder_step"].get_overridable_initializers()}
        self.takes_given_attention = optional >= {"attention_replaced", "given_attention_weights"}
        self._with_emission = {name: array for name, array in WITH_EMISSION.items() if name in optional}
        self._run_options = self._runtime.RunOptions()
        self._thread = threading.local()
        self._device = None if device == "cpu" else self._recording_device(whole, device)
        self._state_names = tuple(tensor.name for tensor in self.manifest.state)
        step_outputs = {tensor.name for tensor in self.manifest.graphs["decoder_step"].outputs}
        self._traced = tuple(name for name in _TRACED if name in step_outputs)
        encoder_outputs = {tensor.name for tensor in self.manifest.graphs["encoder"].outputs}
        self._fetches = self._fetches_by_wish()
        self._encoder_side = tuple(name for name in _ENCODER_SIDE if name in encoder_outputs)
        try:
            self._warm_up_device(device)
        except Exception as error:  # as above: its own error classes share no other ancestor
            raise BundleRefused(f"the graphs of {whole.folder} cannot be run: {error}") from error
        self._describe(metrics, device, time.perf_counter() - started)

    @property
    def runtime_seconds(self) -> float:
        """Time that this thread has spent inside ONNX Runtime so far."""
        seconds: float = getattr(self._thread, "seconds", 0.0)
        return seconds

    def decoder_state(self, beam_size: int) -> DecoderState:
        """Return an empty place for the tensors of a running batch."""
        return HostState(self, beam_size) if self._device is None else DeviceState(self._device, beam_size)

    def encode(self, sources: Sequence[Sequence[int]]) -> Any:
        """Return the encoder side of ``sources``, each with its end of sentence, for a ``decoder_state`` to take in.

        On the processor it is an ``EncodedBatch``; on a device it is made where it goes, when it is taken in.
        """
        if self._device is not None:
            return PendingSources(tuple(map(tuple, sources)))
        inputs = encoder_inputs(sources, self.manifest.special_ids.pad)
        fetches = [*self._encoder_side, *(f"initial_{name}" for name in self._state_names)]
        outputs = self._run("encoder", fetches, inputs)
        return EncodedBatch(
            source_lengths=inputs["source_lengths"],
            encoder_side={name: outputs[name] for name in self._encoder_side},
            initial_state={name: outputs[f"initial_{name}"] for name in self._state_names},
        )

    def step(
        self,
        encoded: EncodedBatch,
        previous_token_ids: Int[np.ndarray, "batch beam"],
        state: Mapping[str, np.ndarray],
        wanted: Wanted,
        given: GivenAttention | None = None,
    ) -> StepOutput:
        """Return the best continuations of every hypothesis, and the next state.

        Args:
            encoded: Encoder side, one row a sentence.
            previous_token_ids: Token emitted last by every hypothesis.
            state: Tensors ``[rows size]`` by name, and ``state_rows``: which row each hypothesis goes on from.
            wanted: What to return.
            given: Attention to use instead of the model's own; only where ``takes_given_attention``.
        """
        inputs = self._step_inputs(encoded, previous_token_ids, state, wanted.candidates)
        if given is not None:
            inputs |= given.graph_inputs
        if wanted.attention:
            inputs |= self._with_emission
        fetches = self._fetches[wanted.attention, wanted.whole_vocabulary]
        outputs = self._run("decoder_step", fetches, inputs)
        return StepOutput(
            candidate_token_ids=outputs["candidate_token_ids"].view(np.int64),  # it comes as its twin, C's long long
            candidate_log_probabilities=outputs["candidate_log_probabilities"],
            state={name: outputs[f"next_{name}"] for name in self._state_names},
            attention_scores=outputs.get("attention_scores"),
            attention_weights=outputs.get("attention_weights"),
            attention_query=outputs.get("attention_query"),
            log_probabilities=outputs.get("log_probabilities"),
            emission_scores=outputs.get("emission_scores"),
        )

    def attend(
        self, encoded: EncodedBatch, previous_token_ids: Int[np.ndarray, "batch beam"], state: Mapping[str, np.ndarray]
    ) -> Attended:
        """Return the attention that ``step`` would have, to the bit, and nothing else of the step."""
        inputs = self._step_inputs(encoded, previous_token_ids, state, candidates=1)
        outputs = self._run("decoder_step", list(_ATTENTION), inputs)
        return Attended(*(outputs[name] for name in _ATTENTION))

    def reloaded(self) -> "Engine":
        """Return another engine of the same bundle; this one need not be in working order.

        It is made of the bytes that this one was made of: the folder may be gone by now, or hold another version. They
        are compared with the manifest again, as whatever broke this engine may have written over them.

        Raises:
            BundleRefused: They have changed, or cannot be run any more.
            DeviceUnavailable: The device cannot be used any more.
        """
        bundle = self._made_of[0]
        for name, content in bundle.files.items():
            if hashlib.sha256(content).hexdigest() != self.manifest.files[name].sha256:
                raise BundleRefused(f"{name} of {bundle.folder} was damaged in this process's memory; start it again")
        return Engine(*self._made_of)

    def terminate(self) -> None:
        """Ask the call that is being made to end at the graph's next node, and fail; so does every later one.

        The only method for another thread than the one that calls the others.
        """
        self._run_options.terminate = True
        if self._device is not None:
            self._device.terminate()

    def _step_inputs(
        self,
        encoded: EncodedBatch,
        previous_token_ids: Int[np.ndarray, "batch beam"],
        state: Mapping[str, np.ndarray],
        candidates: int,
    ) -> dict[str, np.ndarray]:
        return {
            "previous_token_ids": previous_token_ids,
            "source_lengths": encoded.source_lengths,
            "candidates": np.array([min(candidates, self.manifest.sizes["vocabulary"])], np.int64),
            **encoded.encoder_side,
            **state,
        }

    def _run(self, graph: str, fetches: list[str], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        started = time.perf_counter()
        outputs = self._sessions[graph].run(fetches, inputs, self._run_options)
        self._note(graph, time.perf_counter() - started)
        return dict(zip(fetches, outputs, strict=True))

    def _fetches_by_wish(self) -> dict[tuple[bool, bool], list[str]]:
        """Return what a step is to give, by whether attention and the whole vocabulary are wanted."""
        return {
            (attention, whole): [
                "candidate_token_ids",
                "candidate_log_probabilities",
                *(f"next_{name}" for name in self._state_names),
                *(self._traced if attention else ()),
                *(["log_probabilities"] if whole else []),
            ]
            for attention in (False, True)
            for whole in (False, True)
        }

    def _note(self, graph: str, seconds: float) -> None:
        self._thread.seconds = self.runtime_seconds + seconds
        self._run_seconds[graph].observe(seconds)

    def _recording_device(self, bundle: Bundle, name: str) -> Device:
        """Return the device with a step that is recorded, where its graph can be: one with a choice in it cannot."""
        options = cuda_options(int(name.removeprefix("cuda:")), captures=True)
        providers = [("CUDAExecutionProvider", options), ("CPUExecutionProvider", {})]
        try:
            step = open_session(self._runtime, bundle, "decoder_step.onnx", providers, threads=1)
        except BundleRefused:
            step = self._sessions["decoder_step"]
        return Device(self._runtime, {**self._sessions, "decoder_step": step}, self.manifest, name, self._note)

    def _warm_up_device(self, name: str) -> None:
        """Warm up; a device that can record nothing after all makes its steps as they are."""
        try:
            self._warm_up()
        except Exception:
            if self._device is None or not self._device.captures:
                raise
            self._device = Device(self._runtime, self._sessions, self.manifest, name, self._note)
            self._warm_up()

    def _warm_up(self) -> None:
        special = self.manifest.special_ids
        encoded = self.encode([[special.eos]])
        for beam_size in (1, 4):
            state = self.decoder_state(beam_size)
            state.join(encoded)
            previous = np.full((1, beam_size), special.bos, np.int64)
            state.step(previous, Wanted(beam_size + 1, attention=beam_size == 1))
            state.keep([])  # so that the device has the pool for the first batch

    def _describe(self, metrics: Metrics, device: str, load_seconds: float) -> None:
        runtime, model = metrics.runtime, self.manifest.qualified_name
        tables = self.manifest.tables.digest if self.manifest.tables else ""
        digest = manifests.digest(self.manifest)
        python = platform.python_version()
        runtime.build.labels(_version(), self._runtime.__version__, python).set(1)
        runtime.model.remove_by_labels({"model": model})  # another bundle may have had this name
        runtime.model.labels(model, self.manifest.version, digest, self.manifest.precision, tables).set(1)
        runtime.model_loaded.labels(model).set_to_current_time()
        runtime.model_load_seconds.labels(model).set(load_seconds)
        provider = self._sessions["decoder_step"].get_providers()[0]
        runtime.provider.labels(model, device, provider).set(1)


def _version() -> str:
    try:
        return importlib.metadata.version("interlinear")
    except importlib.metadata.PackageNotFoundError:  # a bare checkout
        return "unknown"


def _check_graphs(manifest: Manifest, sessions: Mapping[str, Any]) -> None:
    faults = []
    for name, graph in manifest.graphs.items():
        session = sessions[name]
        for kind, declared, found in (
            ("inputs", graph.inputs, session.get_inputs()),
            ("outputs", graph.outputs, session.get_outputs()),
        ):
            said = {f"{tensor.name}: {tensor.dtype}" for tensor in declared}
            has = {f"{tensor.name}: {_DTYPES.get(tensor.type, tensor.type)}" for tensor in found}
            if said != has:
                faults.append(f"{name}.onnx has {kind} {sorted(has)}; the manifest says {sorted(said)}")
    if faults:
        raise BundleRefused("the graphs are not what the manifest says:\n  " + "\n  ".join(faults))
