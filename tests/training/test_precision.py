import pytest
import torch
from torch import Tensor, nn

from training.precision import ScaledAdam, keep_autocast_type


def test_a_gradient_that_is_not_finite_moves_neither_weights_nor_moments() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    adam = ScaledAdam([weight], lr=0.1, fused=True)
    weight.grad = torch.full((3,), 1024.0)
    adam.grad_scale, adam.found_inf = torch.tensor(1024.0), torch.tensor(0.0)
    adam.step()
    assert torch.equal(adam.state[weight]["exp_avg"], torch.full((3,), 0.1))  # a tenth of a gradient of one
    before = {name: value.clone() for name, value in adam.state[weight].items()} | {"weight": weight.detach().clone()}
    weight.grad = torch.full((3,), float("nan"))
    adam.found_inf = torch.tensor(1.0)
    adam.step()
    assert all(torch.equal(before[name], value) for name, value in adam.state[weight].items())
    assert torch.equal(before["weight"], weight)


class HalfGRU(nn.GRU):
    """Answers in float16, as cuDNN does under autocast."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return inputs.half(), inputs.half()


def test_recurrent_states_can_be_joined_to_others_under_autocast() -> None:
    model = nn.Sequential(HalfGRU(2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError):  # what the cast is for
            torch.cat(model(torch.ones(1, 2)))
        keep_autocast_type(model)
        assert torch.cat(model(torch.ones(1, 2))).dtype == torch.bfloat16
    assert all(states.dtype == torch.float16 for states in model(torch.ones(1, 2)))


def test_other_types_stay_as_they_are_under_autocast() -> None:
    model = nn.Sequential(nn.GRU(2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        before, _ = model(torch.ones(1, 2))
        keep_autocast_type(model)
        after, _ = model(torch.ones(1, 2))
    assert before.dtype == after.dtype == torch.float32 and torch.equal(before, after)
