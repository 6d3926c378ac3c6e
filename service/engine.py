"""One bundle on one device: ``encode`` and ``step``, the only place where ONNX Runtime is imported.

Axes are those of the bundle's graphs: batch, beam, source, hidden, key, size. The source axis is padded to a multiple
of 16, always: with that, what a sentence is batched with does not change one bit of its result on the CPU.
"""

import hashlib
import importlib.metadata
import math
import os
import platform
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bundle import contents
from bundle import manifest as manifests
from bundle.contents import Bundle
from bundle.errors import InvalidBundle
from bundle.manifest import Manifest
from bundle.onnx_files import onnx_faults
from bundle.search import EncodedBatch, StepOutput
from bundle.sessions import encoder_inputs, session_entries
from bundle.step import ALL_EMISSION, GivenAttention
from service.errors import BundleRefused, DeviceUnavailable
from service.metrics import Metrics

_ENCODER_SIDE = ("encoder_states", "attention_keys")
_ATTENTION = ("attention_scores", "attention_weights", "attention_query")
_TRACED = (*_ATTENTION, "emission_scores")
_DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Wanted:
    """What a step is asked for; what is not wanted is not returned, and changes nothing in what is.

    Attributes:
        candidates: Best continuations of every hypothesis; cut to the size of the vocabulary.
        attention: Attention scores, weights and queries, and emission scores where the bundle has them.
        whole_vocabulary: Log probabilities of every token, unsorted.
    """

    candidates: int
    attention: bool = False
    whole_vocabulary: bool = False


@dataclass(frozen=True)
class Attended:
    """The attention of one step; columns past a source's length hold anything in ``scores``, and 0 in ``weights``."""

    scores: Float[np.ndarray, "batch beam source"]
    weights: Float[np.ndarray, "batch beam source"]
    query: Float[np.ndarray, "batch beam key"]


class Engine:
    """Runs the two graphs of one bundle; called from one thread at a time.

    Attributes:
        manifest: What the bundle says about itself.
        takes_given_attention: Whether the decoder's step can be told what to attend to.
        runtime_seconds: Time spent inside ONNX Runtime so far.
    """

    def __init__(self, bundle: Path | Bundle, device: str, threads: int, metrics: Metrics) -> None:
        """Load a bundle and run both graphs once.

        Args:
            bundle: Its folder, which is verified; or what was read of one, and then the folder is not looked at again.
            device: ``cpu`` or ``cuda:N``.
            threads: Threads of one call; 0 takes the processors this process may use.
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
        self.runtime_seconds = 0.0
        self._runtime = _import_runtime()
        model = self.manifest.qualified_name
        self._run_seconds = {graph: metrics.runtime.run_seconds.labels(model, graph) for graph in manifests.GRAPHS}
        providers = _providers(device, self._runtime.get_available_providers())
        if device != "cpu":
            self._runtime.preload_dlls()
        self._sessions = {
            graph: self._session(whole, f"{graph}.onnx", providers, threads or usable_processors())
            for graph in manifests.GRAPHS
        }
        _check_graphs(self.manifest, self._sessions)
        optional = {value.name for value in self._sessions["decoder_step"].get_overridable_initializers()}
        self.takes_given_attention = optional >= {"attention_replaced", "given_attention_weights"}
        self._limits_emission = optional >= ALL_EMISSION.keys()
        self._run_options = self._runtime.RunOptions()
        self._run_options.only_execute_path_to_fetches = True
        self._state_names = tuple(tensor.name for tensor in self.manifest.state)
        step_outputs = {tensor.name for tensor in self.manifest.graphs["decoder_step"].outputs}
        self._traced = tuple(name for name in _TRACED if name in step_outputs)
        encoder_outputs = {tensor.name for tensor in self.manifest.graphs["encoder"].outputs}
        self._encoder_side = tuple(name for name in _ENCODER_SIDE if name in encoder_outputs)
        try:
            self._warm_up()
        except Exception as error:  # as above: its own error classes share no other ancestor
            raise BundleRefused(f"the graphs of {whole.folder} cannot be run: {error}") from error
        self._describe(metrics, device, time.perf_counter() - started)

    def encode(self, sources: Sequence[Sequence[int]]) -> EncodedBatch:
        """Return the encoder side of ``sources``, each with its end of sentence."""
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
            state: Tensors ``[batch beam size]`` by name.
            wanted: What to return.
            given: Attention to use instead of the model's own; only where ``takes_given_attention``.
        """
        inputs = self._step_inputs(encoded, previous_token_ids, state, wanted.candidates)
        if given is not None:
            inputs |= given.graph_inputs
        if wanted.attention and self._limits_emission:
            places = max(previous_token_ids.shape[1], int(encoded.source_lengths.max()))  # not those of the padding
            inputs["emission_limit"] = np.array([places])
        fetches = [
            "candidate_token_ids",
            "candidate_log_probabilities",
            *(f"next_{name}" for name in self._state_names),
            *(self._traced if wanted.attention else ()),
            *(["log_probabilities"] if wanted.whole_vocabulary else []),
        ]
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
        elapsed = time.perf_counter() - started
        self.runtime_seconds += elapsed
        self._run_seconds[graph].observe(elapsed)
        return dict(zip(fetches, outputs, strict=True))

    def _session(self, bundle: Bundle, name: str, providers: list[tuple[str, dict[str, int]]], threads: int) -> Any:
        file, content = bundle.folder / name, bundle.files[name]
        if faults := onnx_faults(content):
            raise BundleRefused(f"{file} cannot be used:\n  " + "\n  ".join(faults))
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors: it warns of every input that has a default, and those are meant
        for name, value in session_entries().items():
            options.add_session_config_entry(name, value)
        try:
            session = self._runtime.InferenceSession(content, options, providers=providers)
        except Exception as error:  # the runtime's own error classes share no other ancestor
            raise BundleRefused(f"{file} cannot be loaded by ONNX Runtime: {error}") from error
        session.disable_fallback()  # else a call that fails on the device is made again, quietly, on the CPU
        if session.get_providers()[0] != providers[0][0]:  # the runtime only warns, and runs on the CPU
            raise DeviceUnavailable(
                f"{providers[0][0]} failed to start and ONNX Runtime fell back to {session.get_providers()[0]}; "
                "check the driver and the CUDA libraries, or set INTERLINEAR_DEVICE=cpu."
            )
        return session

    def _warm_up(self) -> None:
        special = self.manifest.special_ids
        encoded = self.encode([[special.eos]])
        for beam_size in (1, 4):
            state = {name: np.repeat(tensor[:, None], beam_size, 1) for name, tensor in encoded.initial_state.items()}
            previous = np.full((1, beam_size), special.bos, np.int64)
            self.step(encoded, previous, state, Wanted(beam_size + 1, attention=beam_size == 1))

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


def usable_processors() -> int:
    """Return the number of processors this process may use: its affinity, capped by the container's quota.

    Where the system has no affinity (macOS), all processors.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _CPU_QUOTA.read_text().split() if _CPU_QUOTA.is_file() else ["max"]
    return allowed if quota[0] == "max" else max(1, min(allowed, math.ceil(int(quota[0]) / int(quota[1]))))


def refuse_two_runtimes(installed: Collection[str]) -> None:
    """Check the names of the installed distributions of ONNX Runtime.

    Raises:
        DeviceUnavailable: there is none, or two that overwrite each other's files.
    """
    if not installed:
        raise DeviceUnavailable("ONNX Runtime is not installed; install interlinear[cpu] or interlinear[gpu].")
    if len(installed) > 1:
        names = " and ".join(sorted(installed))
        raise DeviceUnavailable(
            f"{names} are both installed and overwrite each other's files, so it is chance which one runs. "
            "Uninstall all of them, then install one: interlinear[cpu] or interlinear[gpu]."
        )


def _version() -> str:
    try:
        return importlib.metadata.version("interlinear")
    except importlib.metadata.PackageNotFoundError:  # a bare checkout
        return "unknown"


def _import_runtime() -> Any:
    known = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
    refuse_two_runtimes([name for name in known if any(importlib.metadata.distributions(name=name))])
    import onnxruntime  # here, so that the check above speaks before a mixed installation crashes

    return onnxruntime


def _providers(device: str, available: Sequence[str]) -> list[tuple[str, dict[str, int]]]:
    if device == "cpu":
        return [("CPUExecutionProvider", {})]
    if "CUDAExecutionProvider" not in available:
        raise DeviceUnavailable(
            f"device {device} was asked for, but the installed ONNX Runtime has only {', '.join(available)}. "
            "Install interlinear[gpu] instead of interlinear[cpu], or set INTERLINEAR_DEVICE=cpu."
        )
    return [("CUDAExecutionProvider", {"device_id": int(device.removeprefix("cuda:"))}), ("CPUExecutionProvider", {})]


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
