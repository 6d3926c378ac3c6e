"""The one place that knows the architectures by name."""

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from training.errors import InvalidConfig
from training.models.aed import AttentionEncoderDecoder, AttentionEncoderDecoderConfig
from training.models.interface import TranslationModel

_ARCHITECTURES: dict[str, Callable[..., TranslationModel]] = {
    "aed": lambda **sizes: AttentionEncoderDecoder(AttentionEncoderDecoderConfig(**sizes)),
}


def build_model(config: dict[str, Any], vocabulary: int) -> TranslationModel:
    """Return a fresh model as the ``[model]`` table of a run describes it.

    Raises:
        InvalidConfig: The architecture is unknown, or a size is unknown, missing or out of range.
    """
    sizes = dict(config)
    architecture = sizes.pop("architecture", None)
    if architecture not in _ARCHITECTURES:
        raise InvalidConfig(f"model.architecture is {architecture!r}; allowed: {', '.join(_ARCHITECTURES)}.")
    try:
        return _ARCHITECTURES[architecture](vocabulary=vocabulary, **sizes)
    except (ValidationError, TypeError) as error:
        raise InvalidConfig(f"[model] does not describe a {architecture}: {error}") from error
