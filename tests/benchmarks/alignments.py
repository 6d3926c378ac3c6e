"""Compares the alignments of a running service with gold ones, for several shifts and the diagonal.

    .venv/dev/bin/python -m tests.benchmarks.alignments ../shared/data/align/hansards-naacl2003/test.en-fr.norm.tsv

A line of the file is source tokens, target tokens, sure links and possible links, tab-separated; links are ``i-j``,
source-target, from 0. The gold target is forced. A token's weights are those of its pieces, summed over source pieces
and averaged over target pieces; its link is the source token of largest weight, and none where that is the end of
sentence. A shift of n reads the attention n steps later (Chen et al. 2020, arXiv 2004.14837, for n = 1).
"""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
from rich.console import Console
from rich.table import Table

from bundle.alignment import Pair, alignment_quality, shifted
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from tests.benchmarks.benchmark import served

SHIFTS = (0, 1, 2)


async def explained(address: str, lines: list[list[str]]) -> list[pb.ExplainResponse]:
    """Return the attention of each line's gold target."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.ExplanationServiceStub(channel)
        requests = (
            pb.ExplainRequest(text=source, target=target, views=[pb.EXPLANATION_VIEW_SCORES])
            for source, target, *_ in lines
        )
        return list(await asyncio.gather(*(stub.Explain(request) for request in requests)))


def linked(reply: pb.ExplainResponse, source: str, target: str, shift: int) -> set[Pair]:
    """Return (target, source) pairs of gold tokens."""
    matrix = reply.attention_weights
    weights = np.frombuffer(matrix.packed_float32, "<f4").reshape(matrix.rows, matrix.columns)
    weights = shifted(weights, shift)
    source_tokens = _tokens_of(reply.source.pieces, source)
    target_tokens = _tokens_of(reply.hypothesis.target.pieces, target)
    by_source = np.zeros((len(weights), len(source.split()) + 1))
    for column, token in enumerate([*source_tokens, len(source.split())]):  # last: end of sentence
        by_source[:, token] += weights[:, column]
    pairs = set()
    for token in set(target_tokens):
        rows = [row for row, owner in enumerate(target_tokens) if owner == token]
        best = int(by_source[rows].mean(axis=0).argmax())
        if best < len(source.split()):
            pairs.add((token, best))
    return pairs


def diagonal(source: str, target: str) -> set[Pair]:
    """Return the links of a model that knows lengths alone."""
    sources, targets = len(source.split()), len(target.split())
    return {(row, min(sources - 1, round((row + 0.5) * sources / targets - 0.5))) for row in range(targets)}


def main() -> None:
    """Align and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    file: Path = parser.parse_args().file
    lines = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    with served() as service:
        replies = asyncio.run(explained(service.grpc_address, lines))
    sure, possible = ([_pairs(line[column]) for line in lines] for column in (2, 3))
    answers = {"diagonal": [diagonal(source, target) for source, target, *_ in lines]}
    for shift in SHIFTS:
        answers[f"attention, shift {shift}"] = [
            linked(reply, source, target, shift) for reply, (source, target, *_) in zip(replies, lines, strict=True)
        ]
    table = Table(title=f"{file.parent.name}/{file.name}, {len(lines)} sentences")
    for heading in ("", "AER", "precision", "recall", "links"):
        table.add_column(heading, justify="right")
    for name, hypotheses in answers.items():
        quality = alignment_quality(hypotheses, sure, possible)
        figures = (quality.alignment_error_rate, quality.precision, quality.recall)
        table.add_row(name, *(f"{figure:.3f}" for figure in figures), f"{quality.links:,}")
    Console(width=100).print(table)


def _tokens_of(pieces: Sequence[pb.Piece], text: str) -> list[int]:
    """Return the space-separated token of ``text`` in which each piece ends; a lone space mark belongs to the next."""
    ends = np.cumsum([len(token) + 1 for token in text.split()])
    places = [piece.span.end_code_point - bool(piece.text) for piece in pieces]
    return [min(int(np.searchsorted(ends, place, side="right")), len(ends) - 1) for place in places]


def _pairs(column: str) -> set[Pair]:
    """Return (target, source) pairs of ``i-j`` links, source-target."""
    return {(int(target), int(source)) for source, target in (link.split("-") for link in column.split())}


if __name__ == "__main__":
    main()
