"""Gated recurrent units, in the three forms the models need: a padded sequence, its reverse, and one step.

The cell is torch's (Cho et al. 2014 with the reset gate applied after the recurrent matrix):
r = σ(W_r x + b_r + U_r h + c_r), z = σ(W_z x + b_z + U_z h + c_z), n = tanh(W_n x + b_n + r∘(U_n h + c_n)),
h' = (1−z)∘n + z∘h. With a first state in [−1, 1] every state stays in [−1, 1].
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class BidirectionalLayer(nn.Module):
    """One layer that reads a padded batch both ways, each sentence to its own length.

    The backward reader sees each sentence flipped within its length, so no padding is ever read before a token;
    this is what ONNX's GRU operator does with ``sequence_lens``.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        """Make two readers of ``hidden_size`` / 2 units each."""
        super().__init__()
        self.forward_reader = nn.GRU(input_size, hidden_size // 2, batch_first=True)
        self.backward_reader = nn.GRU(input_size, hidden_size // 2, batch_first=True)

    def forward(
        self, inputs: Float[Tensor, "batch source input"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch source hidden"], Float[Tensor, "batch hidden"]]:
        """Return the states (zero from each length on) and the last state of each reader, concatenated."""
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        inside = positions < lengths[:, None]
        flipped = torch.where(inside, lengths[:, None] - 1 - positions, positions)
        forward_states, _ = self.forward_reader(inputs)
        backward_states, _ = self.backward_reader(_take_positions(inputs, flipped))
        last = (lengths - 1)[:, None]
        final = torch.cat([_take_positions(forward_states, last), _take_positions(backward_states, last)], dim=-1)
        states = torch.cat([forward_states, _take_positions(backward_states, flipped)], dim=-1)
        return states * inside[..., None], final[:, 0]


def gru_step(
    cell: nn.Module, inputs: Float[Tensor, "*batch input"], state: Float[Tensor, "*batch hidden"]
) -> Float[Tensor, "*batch hidden"]:
    """Return the next state of ``cell``, a one-layer ``nn.GRU``; written out so that its products can be quantized."""
    from_input = nn.functional.linear(inputs, cell.get_parameter("weight_ih_l0"), cell.get_parameter("bias_ih_l0"))
    from_state = nn.functional.linear(state, cell.get_parameter("weight_hh_l0"), cell.get_parameter("bias_hh_l0"))
    hidden = state.shape[-1]
    input_gates, input_new = torch.split(from_input, [2 * hidden, hidden], dim=-1)
    state_gates, state_new = torch.split(from_state, [2 * hidden, hidden], dim=-1)
    reset, update = torch.sigmoid(input_gates + state_gates).chunk(2, dim=-1)
    new = torch.tanh(input_new + reset * state_new)
    return new + update * (state - new)


def _take_positions(
    states: Float[Tensor, "batch source hidden"], positions: Int[Tensor, "batch taken"]
) -> Float[Tensor, "batch taken hidden"]:
    return states.gather(1, positions[..., None].expand(-1, -1, states.shape[-1]))
