"""What training in mixed precision takes beyond autocast: gradients large enough to last, and one narrow type.

cuDNN's recurrence computes in float16 under autocast, whichever type autocast was asked for. There one token's part of
a mean loss vanishes, so the loss is scaled up and the gradients are scaled down again; and float16 cannot be joined to
bfloat16, so what the recurrence answers is cast. On a CPU neither changes anything: the scale is a power of two, and
nothing answers in float16.
"""

from typing import Any

import torch
from torch import Tensor, nn

LOSS_SCALE = 1024.0


class ScaledAdam(torch.optim.AdamW):
    """AdamW as torch's own gradient scaler drives it, fused, so that neither question is asked on the host.

    ``step`` divides gradients by ``grad_scale``, and does nothing at all if ``found_inf`` is 1.
    """

    grad_scale: Tensor
    found_inf: Tensor


def keep_autocast_type(model: nn.Module) -> None:
    """Make every GRU of ``model`` that would answer in float16 under autocast answer in the type of autocast."""
    for layer in model.modules():
        if isinstance(layer, nn.GRU):
            layer.register_forward_hook(_cast)


def _cast(layer: nn.Module, arguments: Any, answer: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    states, last = answer
    device = states.device.type
    if states.dtype != torch.float16 or not torch.is_autocast_enabled(device):
        return answer
    dtype = torch.get_autocast_dtype(device)
    return states.to(dtype), last.to(dtype)
