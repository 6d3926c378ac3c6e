"""What ``interlinear explain`` and ``interlinear models`` draw in a terminal; without colors it still reads."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from bundle.alignment import write_pharaoh
from service.client import array
from service.pb import interlinear_pb2 as pb

END_OF_SENTENCE = "∎"

COMPONENT_NAMES = {
    pb.COMPONENT_TEMPORAL: "temporal",
    pb.COMPONENT_INPUT_DRIVEN: "input-driven",
    pb.COMPONENT_DELTA: "delta",
}
_SUBSETS = {
    "temporal_temporal": "temporal × temporal alone",
    "without_temporal": "without temporal on either side",
    "without_input_driven": "without input-driven on either side",
    "without_delta": "without delta on either side",
}
_CELL_WIDTH = 4  # "1.00"
_HIDDEN_BELOW = 0.005  # would print as .00
_COLD, _HOT = (28, 32, 48), (255, 196, 64)


def explanation_view(response: pb.ExplainResponse, width: int) -> RenderableType:
    """Return the word alignment as a heat map, the shares of the nine terms, and how far to trust them.

    Args:
        response: An explanation with every view.
        width: Columns of the terminal; source words that do not fit go into a further map below.
    """
    hypothesis, decomposition = response.hypothesis, response.decomposition
    origin = "given" if response.forced else "translated"
    tables = decomposition.tables
    lines: list[RenderableType] = [
        Text(hypothesis.text, style="bold"),
        Text(f"{origin}; log-probability {hypothesis.log_probability:.3f} nats", style="dim"),
        *([Text(f"suspicious: {doubts(response.suspicions)}", style="yellow")] if response.suspicions else []),
        Text(),
        *_heat_maps(response, width),
        Text(f"translation down, source across; {END_OF_SENTENCE} is the end of sentence", style="dim"),
        _links(hypothesis.alignment),
        Text("Shares of the nine terms (encoder down, decoder across)", style="bold"),
        nine({(term.encoder, term.decoder): f"{100 * term.share:+.1f} %" for term in decomposition.terms}),
        *_distances(decomposition),
        Text(
            f"\nreconstruction error {decomposition.reconstruction_error:.1e}; "
            f"tables {tables.id} {tables.digest[:12]}, {tables.sentences} sentences of {tables.corpus}",
            style="dim",
        ),
        *(warning_line(warning, response.source, hypothesis.target) for warning in response.warnings),
    ]
    return Group(*lines)


def doubts(suspicions: Iterable[pb.Suspicion]) -> str:
    """Return what speaks against a translation in one line; empty if nothing does."""
    return "; ".join(suspicion.message for suspicion in suspicions)


def cut_off(translation: pb.Translation) -> str:
    """Return that a translation ends where it was as long as it may be; empty if its end is its end."""
    if translation.hypotheses[0].finish_reason != pb.FINISH_REASON_MAX_LENGTH:
        return ""
    return doubts(found for found in translation.suspicions if found.reason == pb.SUSPICION_REASON_LENGTH)


def model_view(model: pb.Model) -> RenderableType:
    """Return what a person wants to know of a model."""
    grid = Table.grid(padding=(0, 2))
    tables = f"{model.tables.id} {model.tables.digest[:12]}" if model.HasField("tables") else "none"
    rows = {
        "languages": f"{model.source_language_code} → {model.target_language_code}",
        "architecture": f"{model.architecture}, {model.precision}, on {model.device}",
        "limits": f"{model.max_source_tokens} source tokens, {model.max_target_tokens} target tokens",
        "digest": model.digest,
        "tables": tables,
        "trained on": model.training_data,
        "license": model.license,
        "credit": model.credit,
        **{f"{figure.metric} {figure.test_set}": f"{figure.value:.4g}" for figure in model.quality},
    }
    for name, value in rows.items():
        grid.add_row(Text(f"  {name}", style="dim"), Text(value))
    default = " (default)" if model.is_default else ""
    return Group(Text(f"{model.name} {model.version}{default}", style="bold"), grid)


def _heat_maps(response: pb.ExplainResponse, width: int) -> Iterator[Table]:
    """Yield the alignment between words, split over as many tables as the width asks for."""
    hypothesis = response.hypothesis
    weights = array(hypothesis.alignment.word_weights)
    target = [word.text for word in hypothesis.target.words]
    target += [END_OF_SENTENCE] * (len(weights) - len(target))
    source = [*(word.text for word in response.source.words), END_OF_SENTENCE]
    room = width - max(map(cell_len, target), default=0) - 1
    for first, last in _chunks([max(_CELL_WIDTH, cell_len(word)) + 1 for word in source], room):
        yield _heat_map(target, source[first:last], weights[:, first:last])


def _links(alignment: pb.Alignment) -> Text:
    """Return how links were drawn, and which."""
    method = pb.AlignmentMethod.Name(alignment.method).removeprefix("ALIGNMENT_METHOD_").lower()
    evidence = pb.AlignmentEvidence.Name(alignment.evidence).removeprefix("ALIGNMENT_EVIDENCE_").lower()
    links = write_pharaoh((link.target_index, link.source_index) for link in alignment.links)
    return Text(f"links, source-target, by {method} from {evidence}: {links or 'none'}\n", style="dim")


def _chunks(widths: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Yield [first, last) of runs of columns that fit into ``room``; a column wider than that stands alone."""
    first, used = 0, 0
    for index, width in enumerate(widths):
        if used and used + width > room:
            yield first, index
            first, used = index, 0
        used += width
    yield first, len(widths)


def _heat_map(target: Sequence[str], source: Sequence[str], weights: Float[np.ndarray, "target source"]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    for word in source:
        table.add_column(Text(word), justify="right", no_wrap=True)
    for word, row in zip(target, weights, strict=True):
        table.add_row(Text(word), *(_cell(float(weight)) for weight in row))
    return table


def _cell(weight: float) -> Text:
    share = min(max(weight, 0.0), 1.0)
    red, green, blue = (round(cold + (hot - cold) * share) for cold, hot in zip(_COLD, _HOT, strict=True))
    style = Style(color="black" if share > 0.5 else "white", bgcolor=f"rgb({red},{green},{blue})")
    number = f"{weight:.2f}".removeprefix("0") if weight >= _HIDDEN_BELOW else ""
    return Text(f"{number:>{_CELL_WIDTH}}", style=style)


def _distances(decomposition: pb.Decomposition) -> Iterator[RenderableType]:
    """Yield how far attention moves when terms are left out: one by one as a table, then larger subsets."""
    distances = {distance.subset: f"{distance.total_variation:.3f}" for distance in decomposition.subset_distances}
    names = {number: pb.Component.Name(number).removeprefix("COMPONENT_").lower() for number in COMPONENT_NAMES}
    yield Text("Attention without one term: total variation from the true one", style="bold")
    yield nine(
        {
            (encoder, decoder): distances.pop(f"without_{names[encoder]}_{names[decoder]}")
            for encoder in names
            for decoder in names
        }
    )
    for subset, distance in distances.items():
        yield Text(f"  {distance}  {_SUBSETS.get(subset, subset)}")


def nine(cells: Mapping[tuple[int, int], str]) -> Table:
    """Return a 3 × 3 table, encoder components down, decoder components across."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in COMPONENT_NAMES.values():
        table.add_column(name, justify="right")
    for encoder, name in COMPONENT_NAMES.items():
        table.add_row(name, *(cells[encoder, decoder] for decoder in COMPONENT_NAMES))
    return table


def warning_line(warning: pb.Warning, source: pb.TokenizedText, target: pb.TokenizedText) -> Text:
    """Return a warning with the pieces it is about, or their rows where those pieces are read there, not emitted."""
    side = pb.Side.Name(warning.side).removeprefix("SIDE_").lower()
    if warning.side == pb.SIDE_TARGET and warning.kind == pb.WARNING_KIND_UNSEEN_TOKEN:
        side, shown = "target rows, from 0", [str(row) for row in warning.positions]
    else:
        pieces = (source if warning.side == pb.SIDE_SOURCE else target).pieces
        shown = [pieces[index].text if index < len(pieces) else END_OF_SENTENCE for index in warning.positions]
    where = f" ({side}: {', '.join(shown)})" if shown else ""
    return Text(f"warning{where}: {warning.message}", style="yellow")
