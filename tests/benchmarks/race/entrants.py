"""Who races, and in which settings: every entrant is a column of the table, every way a process that can run it."""

import itertools
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.benchmarks.race.work import EQUAL, OPUS, Transformer, recurrent_parameters, toolkit_parameters

Family = Literal["interlinear", "service", "equal", "opus", "toolkit"]
PACKAGE = "tests.benchmarks.race"


@dataclass(frozen=True)
class Way:
    """One setting of an entrant that takes a process of its own: its name, command line, and sentences done at once.

    Attributes:
        label: Setting, for the table.
        command: What to run.
        parallel: Batches that it works on at a time; a batch is first cut into as many.
        cuts_batches: Whether it is told how to cut a batch.
    """

    label: str
    command: tuple[str, ...]
    parallel: int = 1
    cuts_batches: bool = False

    def first_settings(self, batch: int) -> dict[str, Any]:
        """Return what is tried first: a batch in as many parts as are worked on at a time."""
        return _cut(math.ceil(batch / self.parallel)) if self.cuts_batches else {}

    def other_settings(self, batch: int) -> list[dict[str, Any]]:
        """Return what else may be faster: smaller parts, and parts counted in tokens."""
        if not self.cuts_batches or batch < 8:
            return []
        whole = math.ceil(batch / self.parallel)
        smaller = sorted({size for size in (whole // 2, 16, batch) if 1 < size <= batch and size != whole})
        return [*(_cut(size) for size in smaller), {"max_batch_size": 1024, "batch_type": "tokens"}]


@dataclass(frozen=True)
class Entrant:
    """One column.

    Attributes:
        name: Its heading.
        family: What it is compared as.
        precision: Of its weights.
        parameters: Learned numbers of its model.
        ways: Its settings, of which the best is taken for every batch and beam size.
        batches: Batches it takes part in; none for all.
        aligns: Whether it takes part with attention returned as well.
    """

    name: str
    family: Family
    precision: str
    parameters: int
    ways: tuple[Way, ...]
    batches: tuple[int, ...] = ()
    aligns: bool = True


def entrants(bundles: Mapping[str, Path], models: Path, rivals: Path, threads: int) -> list[Entrant]:
    """Return all entrants.

    Args:
        bundles: Ours, by precision.
        models: Folder of the Transformers.
        rivals: Python of the rivals' environment.
        threads: Threads of every entrant, all its translations together.
    """
    sizes = json.loads((bundles["float32"] / "manifest.json").read_text(encoding="utf-8"))["sizes"]
    ours = [_ours(bundles[precision], precision, sizes, threads) for precision in ("float32", "int8")]
    transformers = [
        _transformer(family, models / f"{family}-{precision}", precision, rivals, threads)
        for family, precision in itertools.product(("equal", "opus"), ("float32", "int8"))
    ]
    return [*itertools.chain(*ours), *transformers, _toolkit(sizes, rivals, threads)]


def _ours(bundle: Path, precision: str, sizes: Mapping[str, int], threads: int) -> list[Entrant]:
    parameters = recurrent_parameters(sizes)

    def way(module: str) -> tuple[Way]:
        return (Way(f"{threads} threads", (sys.executable, "-m", f"{PACKAGE}.{module}", str(bundle), str(threads))),)

    return [
        Entrant(f"Interlinear {precision}", "interlinear", precision, parameters, way("engine_contender")),
        Entrant(f"gRPC {precision}", "service", precision, parameters, way("grpc_contender"), batches=(1, 32)),
    ]


def _transformer(family: str, folder: Path, precision: str, rivals: Path, threads: int) -> Entrant:
    sizes: Transformer = {"equal": EQUAL, "opus": OPUS}[family]
    types = ("float32",) if precision == "float32" else ("int8", "int8_float32")
    splits = [(inter, threads // inter) for inter in range(1, threads + 1) if threads % inter == 0]
    ways = tuple(
        Way(
            f"{compute_type}, {inter} × {intra} threads",
            (str(rivals), "-m", f"{PACKAGE}.ctranslate2_contender", str(folder), compute_type, str(inter), str(intra)),
            parallel=inter,
            cuts_batches=True,
        )
        for compute_type, (inter, intra) in itertools.product(types, splits)
    )
    heading = {"equal": "CTranslate2", "opus": "CTranslate2 OPUS"}[family]
    return Entrant(
        f"{heading} {precision}", "equal" if family == "equal" else "opus", precision, sizes.parameters, ways
    )


def _toolkit(sizes: Mapping[str, int], rivals: Path, threads: int) -> Entrant:
    module = f"{PACKAGE}.joeynmt_contender"
    ways = tuple(
        Way(f"{autocast}, {count} threads", (str(rivals), "-m", module, str(count), autocast, json.dumps(dict(sizes))))
        for count, autocast in itertools.product(sorted({1, threads}), ("float32", "bfloat16"))
    )
    return Entrant("Joey NMT", "toolkit", "float32", toolkit_parameters(sizes), ways, aligns=False)


def _cut(size: int) -> dict[str, Any]:
    return {"max_batch_size": size, "batch_type": "examples"}
