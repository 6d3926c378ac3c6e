"""A model's ``encode`` and ``step`` as two ONNX graphs, traced through the interface and blind to the architecture.

Axes are those of the bundle's graphs: batch, beam, source and k are dynamic, the others are sizes of the model.
"""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bundle import manifest as manifests
from exporters.editing import GraphEditor, array_of, split_constants
from training.models.interface import Encoded, GivenAttention, TranslationModel
from training.models.recurrence import BidirectionalLayer

OPSET = 22  # the first whose GRU is the current one

_ENCODER_SIDE_AXES = {
    "encoder_states": ("batch", "source", "hidden"),
    "attention_keys": ("batch", "source", "key"),
    "emission_context": ("batch", "source", "embedding"),
}
_TRACED_AXES = {
    "attention_scores": ("batch", "beam", "source"),
    "attention_weights": ("batch", "beam", "source"),
    "attention_query": ("batch", "beam", "key"),
    "context": ("batch", "beam", "hidden"),
    "emission_scores": ("batch", "beam", "source"),
}
# Inputs with a default, which nothing feeds in plain decoding: attention for the step to use instead of its own.
_GIVEN_AXES = {"attention_replaced": ("batch", "beam", "one"), "given_attention_weights": ("batch", "beam", "source")}
_DYNAMIC_AXES = ("batch", "beam", "source", "k", "rows")
_EXAMPLE_SIZES = {"batch": 2, "beam": 3, "source": 32, "k": 5, "rows": 7}  # the tracer would freeze a size of 0 or 1


@dataclass(frozen=True)
class Graphs:
    """The two graphs of a bundle by name (``bundle.manifest.GRAPHS``), and their declared inputs and outputs."""

    models: dict[str, onnx_ir.Model]
    signature: dict[str, manifests.Graph]

    def serialized(self) -> dict[str, bytes]:
        """Return the content of each graph's file, by graph name; equal models give equal bytes."""
        return {
            name: onnx_ir.to_proto(_with_emission_on_request(model)).SerializeToString(deterministic=True)
            for name, model in self.models.items()
        }


def export_graphs(model: TranslationModel) -> Graphs:
    """Return the float32 graphs of ``model``, which stays as it was."""
    model = _with_gru_operators(copy.deepcopy(model).cpu().float()).eval()
    batch, beam, source = (_EXAMPLE_SIZES[axis] for axis in ("batch", "beam", "source"))
    source_ids, source_lengths = torch.ones(batch, source, dtype=torch.long), torch.full((batch,), source)
    previous = torch.ones(batch, beam, dtype=torch.long)
    with torch.no_grad():
        encoded = model.encode(source_ids, source_lengths)
        state = {name: tensor[:, None].repeat(1, beam, 1) for name, tensor in encoded.initial_state.items()}
        stepped = model.step(previous, state, encoded)
    kept = {name: tensor.flatten(0, 1).repeat(2, 1)[: _EXAMPLE_SIZES["rows"]] for name, tensor in state.items()}
    kept["state_rows"] = torch.zeros(batch, beam, dtype=torch.long)
    traced = [name for name in _TRACED_AXES if getattr(stepped, name) is not None]
    signature = _signature(model, list(encoded.encoder_side), traced)
    given, defaults = {}, {}
    if stepped.attention_weights is not None:
        given = {"attention_replaced": torch.zeros(batch, beam, 1, dtype=torch.bool)}
        given["given_attention_weights"] = torch.zeros(batch, beam, source)
        defaults = {name: tensor[:1, :1, :1] for name, tensor in given.items()}
    read = encoded.encoder_side | {"source_lengths": source_lengths}
    step_inputs = (previous, kept, read, torch.tensor([_EXAMPLE_SIZES["k"]]), given)
    models = {
        "encoder": _export(_Encode(model), (source_ids, source_lengths), signature["encoder"], {}),
        "decoder_step": _export(_Step(model, traced), step_inputs, signature["decoder_step"], defaults),
    }
    return Graphs(models, signature)


class _Encode(nn.Module):
    """``encode`` with tensors in and tensors out."""

    def __init__(self, model: TranslationModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, source_ids: Int[Tensor, "batch source"], source_lengths: Int[Tensor, "batch"]
    ) -> tuple[Tensor, ...]:
        encoded = self.model.encode(source_ids, source_lengths)
        return (*encoded.encoder_side.values(), *encoded.initial_state.values())


class _Step(nn.Module):
    """``step`` with tensors in and tensors out, and the best ``candidates`` tokens of each row."""

    def __init__(self, model: TranslationModel, traced: Sequence[str]) -> None:
        super().__init__()
        self.model, self.traced = model, traced

    def forward(
        self,
        previous_token_ids: Int[Tensor, "batch beam"],
        kept: dict[str, Tensor],
        encoded: dict[str, Tensor],
        candidates: Int[Tensor, "1"],
        given: dict[str, Tensor],
    ) -> tuple[Tensor, ...]:
        side = {name: tensor for name, tensor in encoded.items() if name != "source_lengths"}
        attention = GivenAttention(*given.values()) if given else None
        rows = kept["state_rows"]
        state = {each.name: nn.functional.embedding(rows, kept[each.name]) for each in self.model.state}
        stepped = self.model.step(previous_token_ids, state, Encoded(encoded["source_lengths"], side, {}), attention)
        # The operator itself, because torch.topk takes no k that is a tensor. It gives ties to the lower token id.
        best, token_ids = torch.onnx.ops.symbolic_multi_out(
            "TopK",
            (stepped.log_probabilities, candidates),
            {"axis": -1, "largest": 1, "sorted": 1},
            dtypes=(torch.float32, torch.int64),
            shapes=((*previous_token_ids.shape, _EXAMPLE_SIZES["k"]),) * 2,
            version=11,
        )
        traced = [getattr(stepped, name) for name in self.traced]
        return (token_ids, best, stepped.log_probabilities, *traced, *stepped.state.values())


class _GruOperator(nn.Module):
    """A bidirectional layer as one ONNX GRU operator, which honours ``sequence_lens`` and so never reads padding."""

    def __init__(self, layer: BidirectionalLayer) -> None:
        super().__init__()
        readers = (layer.forward_reader, layer.backward_reader)
        self.hidden = layer.forward_reader.hidden_size
        self.input_weights = _stacked(readers, "weight_ih_l0")
        self.state_weights = _stacked(readers, "weight_hh_l0")
        self.biases = _stacked(readers, "bias_ih_l0", "bias_hh_l0")

    def forward(
        self, inputs: Float[Tensor, "batch source input"], lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch source hidden"], Float[Tensor, "batch hidden"]]:
        batch, source, _ = inputs.shape
        states, last = torch.onnx.ops.symbolic_multi_out(
            "GRU",
            (inputs.transpose(0, 1), self.input_weights, self.state_weights, self.biases, lengths.to(torch.int32)),
            {"direction": "bidirectional", "hidden_size": self.hidden, "linear_before_reset": 1},
            dtypes=(torch.float32, torch.float32),
            shapes=((source, 2, batch, self.hidden), (2, batch, self.hidden)),
            version=OPSET,
        )
        return states.permute(2, 0, 1, 3).flatten(2), last.transpose(0, 1).flatten(1)


def _with_gru_operators(model: TranslationModel) -> TranslationModel:
    for name, module in list(model.named_modules()):
        if isinstance(module, BidirectionalLayer):
            model.set_submodule(name, _GruOperator(module))
    return model


def _stacked(readers: Sequence[nn.GRU], *names: str) -> nn.Parameter:
    """Return the parameters ``names`` of each reader end to end, gates in ONNX's order (update, reset, new)."""
    parts = [torch.cat([_update_first(getattr(reader, name)) for name in names]) for reader in readers]
    return nn.Parameter(torch.stack(parts))


def _update_first(weight: Tensor) -> Tensor:
    reset, update, new = weight.detach().chunk(3)
    return torch.cat([update, reset, new])


def _signature(
    model: TranslationModel, encoder_side: Sequence[str], traced: Sequence[str]
) -> dict[str, manifests.Graph]:
    def tensor(name: str, *axes: str, dtype: str = "float32") -> manifests.Tensor:
        return manifests.Tensor(name, dtype, axes)

    side = tuple(tensor(name, *_ENCODER_SIDE_AXES[name]) for name in encoder_side)
    lengths = tensor("source_lengths", "batch", dtype="int64")
    names = [state.name for state in model.state]
    return {
        "encoder": manifests.Graph(
            inputs=(tensor("source_ids", "batch", "source", dtype="int64"), lengths),
            outputs=(*side, *(tensor(f"initial_{name}", "batch", "size") for name in names)),
        ),
        "decoder_step": manifests.Graph(
            inputs=(
                tensor("previous_token_ids", "batch", "beam", dtype="int64"),
                *(tensor(name, "rows", "size") for name in names),
                tensor("state_rows", "batch", "beam", dtype="int64"),
                *side,
                lengths,
                tensor("candidates", "one", dtype="int64"),
            ),
            outputs=(
                tensor("candidate_token_ids", "batch", "beam", "k", dtype="int64"),
                tensor("candidate_log_probabilities", "batch", "beam", "k"),
                tensor("log_probabilities", "batch", "beam", "vocabulary"),
                *(tensor(name, *_TRACED_AXES[name]) for name in traced),
                *(tensor(f"next_{name}", "batch", "beam", "size") for name in names),
            ),
        ),
    }


def _export(
    module: nn.Module, inputs: tuple[Any, ...], signature: manifests.Graph, defaults: Mapping[str, Tensor]
) -> onnx_ir.Model:
    """Return the graph of ``module``; inputs beyond the signature are those that have ``defaults``, in order."""
    optional = [manifests.Tensor(name, str(default.dtype), _GIVEN_AXES[name]) for name, default in defaults.items()]
    declared = [*signature.inputs, *optional]
    remaining = (_dynamic(tensor) for tensor in declared)
    dynamic_shapes = tuple(
        {name: next(remaining) for name in value} if isinstance(value, dict) else next(remaining) for value in inputs
    )
    with _quiet_tracing():
        program = torch.onnx.export(
            module.eval(),
            (*inputs, {}),  # torch takes a last dictionary for keyword arguments
            input_names=[tensor.name for tensor in declared],
            output_names=[tensor.name for tensor in signature.outputs],
            dynamic_shapes=dynamic_shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    for value in program.model.graph.inputs[len(signature.inputs) :]:
        assert value.name is not None
        value.const_value = onnx_ir.tensor(defaults[value.name].numpy(), name=value.name)
        program.model.graph.register_initializer(value)
    split_constants(program.model.graph)
    return _cleaned(program.model, signature)


def _with_emission_on_request(model: onnx_ir.Model) -> onnx_ir.Model:
    """Return ``model`` with emission scores, if it has any, worked out only when an input asks for them.

    ONNX Runtime runs nodes that nobody fetches, so plain decoding would pay for them (docs/decisions/0014).
    """
    model = model.clone()
    graph = model.graph
    wanted = next((value for value in graph.outputs if value.name == "emission_scores"), None)
    if wanted is None:
        return model
    alone = behind([wanted]) - behind([value for value in graph.outputs if value is not wanted])
    asked = onnx_ir.Value(
        name="emission_wanted",
        const_value=onnx_ir.tensor(np.array([False]), name="emission_wanted"),
        shape=onnx_ir.Shape([1]),
        type=onnx_ir.TensorType(onnx_ir.DataType.BOOL),
    )
    graph.register_initializer(asked)
    graph.inputs.append(asked)
    place = graph.outputs.index(wanted)
    graph.outputs.pop(place)
    moved = [node for node in graph if node in alone]
    nothing = onnx_ir.node("Constant", [], {"value": onnx_ir.tensor(np.zeros((0, 0, 0), np.float32))})
    graph.remove(moved)
    emission = onnx_ir.Graph([], [wanted], nodes=moved, name="emission")
    _own_weights(emission)
    choice = onnx_ir.node(
        "If",
        [asked],
        {
            "then_branch": emission,
            "else_branch": onnx_ir.Graph([], nothing.outputs, nodes=[nothing], name="no_emission"),
        },
    )
    graph.append(choice)
    result = choice.outputs[0]
    result.name, result.shape, result.type = "emission_scores", wanted.shape, wanted.type
    wanted.name = "emission_scores_asked_for"
    nothing.outputs[0].name = "no_emission_scores"
    graph.outputs.insert(place, result)
    return model


def _own_weights(branch: onnx_ir.Graph) -> None:
    """Give each product of ``branch`` 8-bit weights of its own (``exporters.integers`` says why)."""
    editor = GraphEditor(branch)
    for node in [node for node in branch if node.op_type != "Gather"]:
        for place, value in enumerate(node.inputs):
            if value is not None and value.is_initializer() and value.dtype == onnx_ir.DataType.INT8:
                own = editor.constant(f"{value.name}_of_{node.outputs[0].name}", array_of(value))
                node.replace_input_with(place, own)


def behind(values: Sequence[onnx_ir.Value]) -> set[onnx_ir.Node]:
    """Return the nodes that ``values`` are made by."""
    found: set[onnx_ir.Node] = set()
    waiting = [node for value in values if (node := value.producer()) is not None]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [made for value in node.inputs if value is not None and (made := value.producer()) is not None]
    return found


def _dynamic(tensor: manifests.Tensor) -> dict[int, str]:
    return {place: axis for place, axis in enumerate(tensor.axes) if axis in _DYNAMIC_AXES}


def _cleaned(model: onnx_ir.Model, signature: manifests.Graph) -> onnx_ir.Model:
    """Return ``model`` with the declared axis names and without traces of the machine that exported it."""
    for value, declared in zip(model.graph.outputs, signature.outputs, strict=True):
        assert value.shape is not None
        sizes = [axis if axis in _DYNAMIC_AXES else size for axis, size in zip(declared.axes, value.shape, strict=True)]
        value.name, value.shape = declared.name, onnx_ir.Shape(sizes)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        for output in node.outputs:
            output.metadata_props.clear()
    return model


@contextmanager
def _quiet_tracing() -> Iterator[None]:
    """Silence the tracer's remarks on itself; none of them is about the model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
