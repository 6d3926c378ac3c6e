"""One TOML file describes a run; an unknown key is an error, and the file is copied into every checkpoint."""

import tomllib
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from bundle.manifest import LANGUAGE_TAG
from training.errors import InvalidConfig

_STRICT = ConfigDict(extra="forbid")
_LanguageTag = Annotated[str, Field(pattern=f"^{LANGUAGE_TAG}$")]
_Positive = Annotated[int, Field(gt=0)]
_Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


@dataclass(frozen=True, config=_STRICT)
class CorpusConfig:
    """One parallel corpus: a TSV file (source, TAB, target), or two line-aligned files; plain, .gz or .xz.

    ``weight`` is how many times a pair is seen an epoch, on average (0.25 = a new random quarter every epoch);
    ``limit`` keeps the first pairs only.
    """

    source: Path
    target: Path | None = None
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    limit: _Positive | None = None


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """The text of a run. Languages are BCP-47 codes; lengths are in tokens, the end mark not counted."""

    source_language: _LanguageTag
    target_language: _LanguageTag
    train: Annotated[tuple[CorpusConfig, ...], Field(min_length=1)]
    dev: Annotated[tuple[CorpusConfig, ...], Field(min_length=1)]
    max_source_tokens: _Positive = 128
    max_target_tokens: _Positive = 128
    max_length_ratio: Annotated[float, Field(gt=1.0)] = 4.0
    licence: str = "unknown"
    credit: str = ""


@dataclass(frozen=True, config=_STRICT)
class VocabularyConfig:
    """The joint vocabulary: pieces, sentences sampled to make it, share of characters it must spell."""

    size: _Positive = 8000
    sentences: _Positive = 600_000
    character_coverage: Annotated[float, Field(gt=0.9, le=1.0)] = 0.9999


@dataclass(frozen=True, config=_STRICT)
class ScheduleConfig:
    """How the weights move. A step is one update; token counts are target tokens, padding included.

    The learning rate rises linearly over ``warmup_steps``, stays at ``learning_rate``, and falls linearly to zero
    over the last ``decay_steps``. ``average_decay`` is the decay of the exponential moving average of the weights,
    which is what is validated, saved as the model and exported; 0 turns it off.
    """

    steps: _Positive
    batch_tokens: _Positive = 4096
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-3
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    decay_steps: Annotated[int, Field(ge=0)] = 1000
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    label_smoothing: _Fraction = 0.1
    clip_norm: Annotated[float, Field(gt=0.0)] = 1.0
    average_decay: _Fraction = 0.999
    validate_every: _Positive = 500
    validation_sentences: _Positive = 400
    patience: _Positive | None = None


@dataclass(frozen=True, config=_STRICT)
class GuidanceConfig:
    """Teaching attention the links of an aligner (training/guidance.py).

    ``weight`` is what a nat of attention's surprise at the links counts against a nat of the translation's loss;
    ``pairs`` is how many pairs of each corpus, from its first, are aligned: the others train as without guidance.
    """

    weight: Annotated[float, Field(gt=0.0)] = 0.3
    pairs: _Positive = 400_000


@dataclass(frozen=True, config=_STRICT)
class RunConfig:
    """A whole run. ``model`` names an architecture of the registry and its sizes, checked by the model itself."""

    data: DataConfig
    model: dict[str, Any]
    schedule: ScheduleConfig
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    guidance: GuidanceConfig | None = None
    seed: int = 1
    device: Literal["cpu", "cuda", "mps", "auto"] = "cpu"
    devices: _Positive = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"


def read_config(file: Path) -> RunConfig:
    """Return the run that ``file`` describes; relative corpus paths are taken from the working directory.

    Raises:
        InvalidConfig: The file is missing or not TOML, a key is unknown or missing, or a value is out of range;
            all faults in one message.
    """
    try:
        return parse_config(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"cannot read the run's configuration {file}: {error.strerror}.") from error
    except InvalidConfig as error:
        raise InvalidConfig(f"{file}: {error}") from error


def parse_config(text: str) -> RunConfig:
    """Return the run that a TOML ``text`` describes.

    Raises:
        InvalidConfig: As ``read_config``.
    """
    try:
        return TypeAdapter(RunConfig).validate_python(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(f"not TOML: {error}.") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()
        )
        raise InvalidConfig(f"{faults}. Mend or remove these keys.") from error
