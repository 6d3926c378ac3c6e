"""ONNX Runtime: the only module that imports it, and how its sessions are opened."""

import importlib.metadata
from collections.abc import Collection, Sequence
from typing import Any

from bundle.contents import Bundle
from bundle.onnx_files import onnx_faults
from bundle.sessions import session_entries
from service.errors import BundleRefused, DeviceUnavailable

Provider = tuple[str, dict[str, str]]

# What the runtime works out on the processor so that the device need not be asked for a size.
_SHAPES = frozenset({"Cast", "Concat", "Gather", "Shape", "Slice", "Squeeze", "Unsqueeze"})


def import_runtime() -> Any:
    """Return ONNX Runtime.

    Raises:
        DeviceUnavailable: It is not installed, or twice.
    """
    known = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
    refuse_two_runtimes([name for name in known if any(importlib.metadata.distributions(name=name))])
    import onnxruntime  # here, so that the check above speaks before a mixed installation crashes

    return onnxruntime


def providers_for(device: str, available: Sequence[str]) -> list[Provider]:
    """Return the execution providers of ``device`` (``cpu`` or ``cuda:N``), of those ``available``.

    Raises:
        DeviceUnavailable: The one that it takes is not there.
    """
    if device == "cpu":
        return [("CPUExecutionProvider", {})]
    if "CUDAExecutionProvider" not in available:
        raise DeviceUnavailable(
            f"device {device} was asked for, but the installed ONNX Runtime has only {', '.join(available)}. "
            "Install interlinear[gpu] instead of interlinear[cpu], or set INTERLINEAR_DEVICE=cpu."
        )
    options = cuda_options(int(device.removeprefix("cuda:")), captures=False)
    return [("CUDAExecutionProvider", options), ("CPUExecutionProvider", {})]


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


def open_session(runtime: Any, bundle: Bundle, name: str, providers: list[Provider], threads: int) -> Any:
    """Return a session on the graph ``name`` of ``bundle``, on the first of ``providers`` and nowhere else.

    Raises:
        BundleRefused: The graph may not be run, or cannot be loaded.
        DeviceUnavailable: The provider does not start, or leaves operators to the processor.
    """
    file, content = bundle.folder / name, bundle.files[name]
    if faults := onnx_faults(content):
        raise BundleRefused(f"{file} cannot be used:\n  " + "\n  ".join(faults))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors: it warns of every input that has a default, and those are meant
    for entry, value in session_entries().items():
        options.add_session_config_entry(entry, value)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")  # for ``left_behind``
    try:
        session = runtime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # the runtime's own error classes share no other ancestor
        raise BundleRefused(f"{file} cannot be loaded by ONNX Runtime: {error}") from error
    session.disable_fallback()  # else a call that fails on the device is made again, quietly, on the CPU
    if session.get_providers()[0] != providers[0][0]:  # the runtime only warns, and runs on the CPU
        raise DeviceUnavailable(
            f"{providers[0][0]} failed to start and ONNX Runtime fell back to {session.get_providers()[0]}; "
            "check the driver and the CUDA libraries, or set INTERLINEAR_DEVICE=cpu."
        )
    if providers[0][0] != "CPUExecutionProvider" and (operators := left_behind(session)):
        raise DeviceUnavailable(
            f"{file} has operators that {providers[0][0]} does not run: {', '.join(operators)}; "
            "make a float16 bundle (--precision float16), or set INTERLINEAR_DEVICE=cpu."
        )
    return session


def cuda_options(number: int, captures: bool) -> dict[str, str]:
    """Return the options of the CUDA provider: products of float32 are exact, memory grows by what is needed.

    Args:
        number: Of the device.
        captures: Whether calls are recorded; a graph that cannot be is refused when its session is made.
    """
    return {
        "device_id": str(number),
        "use_tf32": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": str(int(captures)),
    }


def left_behind(session: Any) -> list[str]:
    """Return the operators that a session on a device runs on the processor, each once; sizes may be worked out there.

    The session was made with the entry ``session.record_ep_graph_assignment_info``.
    """
    parts = [part for part in session.get_provider_graph_assignment_info() if part.ep_name == "CPUExecutionProvider"]
    return sorted({node.op_type for part in parts for node in part.get_nodes()} - _SHAPES)
