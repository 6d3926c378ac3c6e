"""Explains every sentence of a test set through a real service, and checks that each explanation adds up.

    .venv/dev/bin/python -m tests.benchmarks.explanations ../shared/data/europarl-en-fr/test.tsv.gz

Prints the worst gaps, and the mean shares and subset distances: what the model's attention is made of on this text.
"""

import argparse
import asyncio
import gzip
import itertools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from rich.console import Console

from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from tests.benchmarks.benchmark import served

_CALLERS = 8
_COMPONENTS = ("temporal", "input-driven", "delta")


@dataclass
class Gaps:
    """The largest deviations seen, and the sums that means are made of."""

    sentences: int = 0
    refused: int = 0
    terms: float = 0.0
    softmax: float = 0.0
    rows: float = 0.0
    shares: float = 0.0
    mean_shares: np.ndarray = field(default_factory=lambda: np.zeros(9))
    distances: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)

    def add(self, reply: pb.ExplainResponse) -> None:
        """Take one explanation into account."""
        scores, weights = _array(reply.attention_scores), _array(reply.attention_weights)
        contributions = sum(_array(term.contribution) for term in reply.decomposition.terms)
        shares = np.array([term.share for term in reply.decomposition.terms])
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        self.sentences += 1
        self.terms = max(self.terms, float(np.abs(contributions - scores).max() / np.abs(scores).max()))
        self.softmax = max(
            self.softmax, float(np.abs(exponentials / exponentials.sum(axis=1, keepdims=True) - weights).max())
        )
        self.rows = max(self.rows, float(np.abs(weights.sum(axis=1) - 1).max()))
        self.shares = max(self.shares, abs(float(shares.sum()) - 1))
        self.mean_shares += shares
        self.distances.update({item.subset: item.total_variation for item in reply.decomposition.subset_distances})
        self.warnings.update({pb.WarningKind.Name(warning.kind) for warning in reply.warnings})


async def explain_all(address: str, texts: list[str]) -> Gaps:
    """Return what the explanations of ``texts`` deviate by."""
    gaps, pending = Gaps(), iter(texts)

    async def caller(stub: pb_grpc.ExplanationServiceStub) -> None:
        for text in pending:
            try:
                gaps.add(await stub.Explain(pb.ExplainRequest(text=text)))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                    raise
                gaps.refused += 1

    async with grpc.aio.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        await asyncio.gather(*(caller(pb_grpc.ExplanationServiceStub(channel)) for _ in range(_CALLERS)))
    return gaps


def main() -> None:
    """Explain and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="TSV files, gzip; the first column is explained")
    parser.add_argument("--sentences", type=int, default=None, help="of each file (all)")
    arguments = parser.parse_args()
    console = Console(width=110, highlight=False)
    with served() as service:
        for file in arguments.files:
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                texts = [line.split("\t")[0] for line in itertools.islice(lines, arguments.sentences)]
            report(console, file, asyncio.run(explain_all(service.grpc_address, texts)))


def report(console: Console, file: Path, gaps: Gaps) -> None:
    """Print one file's figures."""
    console.print(
        f"[bold]{file.parent.name}/{file.name}[/bold]: {gaps.sentences} sentences explained, {gaps.refused} too long"
    )
    console.print(f"  largest gap, sum of nine terms to scores, relative   {gaps.terms:.1e}")
    console.print(f"  largest gap, softmax of scores to weights            {gaps.softmax:.1e}")
    console.print(f"  largest gap, row of weights to 1                     {gaps.rows:.1e}")
    console.print(f"  largest gap, sum of shares to 1                      {gaps.shares:.1e}")
    console.print(f"  sentences with a warning: {dict(gaps.warnings)}")
    console.print("  mean shares, encoder down, decoder across")
    for name, row in zip(_COMPONENTS, gaps.mean_shares.reshape(3, 3) / gaps.sentences, strict=True):
        console.print(f"    {name:12} " + " ".join(f"{share:+.3f}" for share in row))
    console.print("  attention rebuilt from some terms, mean total variation from the true one")
    for subset, total in gaps.distances.items():
        console.print(f"    {subset:36} {total / gaps.sentences:.3f}")


def _array(matrix: pb.Matrix) -> np.ndarray:
    return np.frombuffer(matrix.packed_float32, "<f4").reshape(matrix.rows, matrix.columns)


if __name__ == "__main__":
    main()
