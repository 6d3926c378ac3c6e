"""Links between words, as programs read them: Pharaoh, a table, or the whole reply; and the rules that draw them."""

from collections.abc import Iterator
from enum import StrEnum

from google.protobuf import json_format

from bundle.alignment import write_pharaoh
from service.pb import interlinear_pb2 as pb

_COLUMNS = (
    "source_index",
    "target_index",
    "source_word",
    "target_word",
    "source_start",
    "source_end",
    "target_start",
    "target_end",
    "weight",
)


class Method(StrEnum):
    """The rules by which links are drawn; those after ``THRESHOLD`` need a service with a reverse bundle."""

    ARGMAX = "argmax"
    THRESHOLD = "threshold"
    INTERSECTION = "intersection"
    UNION = "union"
    GROW_DIAG = "grow_diag"
    GROW_DIAG_FINAL_AND = "grow_diag_final_and"


class Evidence(StrEnum):
    """The weights that links are drawn from."""

    ATTENTION = "attention"
    POSTERIOR = "posterior"


class Format(StrEnum):
    """How an alignment is written."""

    PHARAOH = "pharaoh"
    TSV = "tsv"
    JSON = "json"


def alignment_options(
    method: Method | None, threshold: float | None, evidence: Evidence | None = None
) -> pb.AlignmentOptions:
    """Return what ``--method``, ``--threshold`` and ``--evidence`` ask for; a threshold alone names its method."""
    if method is None and threshold is not None:
        method = Method.THRESHOLD
    return pb.AlignmentOptions(
        method=method and f"ALIGNMENT_METHOD_{method.name}",
        threshold=threshold,
        evidence=evidence and f"ALIGNMENT_EVIDENCE_{evidence.name}",
    )


def written(response: pb.ExplainResponse, output: Format) -> str:
    """Return an explanation with its alignment as text.

    pharaoh: ``source-target`` indices from 0, in the order of the source. tsv: as ``tsv_lines``. json: the reply in the
    proto's mapping.
    """
    if output is Format.JSON:
        return str(json_format.MessageToJson(response, ensure_ascii=False))
    if output is Format.TSV:
        return "\n".join(tsv_lines(response))
    return write_pharaoh((link.target_index, link.source_index) for link in response.hypothesis.alignment.links)


def tsv_lines(response: pb.ExplainResponse) -> Iterator[str]:
    """Yield a header, a line for each link and one for each word without, in the order of the source.

    Columns are ``_COLUMNS``: indices of words from 0, words, their places in code points (half-open), and the weight of
    the link from 0 to 1. A word without a link has the columns of the other side and the weight empty.
    """
    alignment, source, target = response.hypothesis.alignment, response.source, response.hypothesis.target
    rows: list[tuple[int | None, int | None, str]] = [
        (link.source_index, link.target_index, f"{link.weight:.6g}") for link in alignment.links
    ]
    rows += [(index, None, "") for index in alignment.unaligned_source_words]
    rows.sort(key=lambda row: (row[0], row[1]))
    rows += [(None, index, "") for index in alignment.unaligned_target_words]
    yield "\t".join(_COLUMNS)
    for source_index, target_index, weight in rows:
        sides = [_cells(source, source_index), _cells(target, target_index)]
        (index, word, *place), (other_index, other_word, *other_place) = sides
        yield "\t".join([index, other_index, word, other_word, *place, *other_place, weight])


def _cells(text: pb.TokenizedText, index: int | None) -> tuple[str, str, str, str]:
    """Return the index of a word, the word without tabs and line breaks, and where it starts and ends."""
    if index is None:
        return "", "", "", ""
    word = text.words[index]
    return str(index), " ".join(word.text.split()), str(word.span.start_code_point), str(word.span.end_code_point)
