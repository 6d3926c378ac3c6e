"""The model card: a bundle's README.md, generated from its manifest and nothing else."""

from collections.abc import Sequence
from typing import Any

from bundle.manifest import Manifest


def model_card(manifest: Manifest) -> str:
    """Return the card of the bundle that ``manifest`` describes, in Markdown."""
    limits = manifest.limits
    sections = [
        f"# {manifest.bundle_id} {manifest.version}",
        f"Translates {manifest.source_language} to {manifest.target_language}: architecture `{manifest.architecture}`, "
        f"precision {manifest.precision}, made for Interlinear (bundle format {manifest.format_version}).",
        "## Figures",
        _quality(manifest),
        "## Limits",
        f"* Source: {limits.max_source_tokens} tokens, target: {limits.max_target_tokens} tokens, end of "
        "sentence included. One sentence at a time.\n"
        "* Attention is not alignment: links are read off attention weights, and a person would draw some otherwise.\n"
        "* Decompositions rest on the component tables below; other text would give other tables.",
        "## Sizes",
        _table(("what", "size"), [(name, f"{size:,}") for name, size in sorted(manifest.sizes.items())]),
        "## Data, licence, credit",
        "\n".join(f"* {name}: {value}" for name, value in sorted(manifest.training.items())),
        "## Component tables",
        _tables(manifest),
        "## Parity",
        "Measured when the bundle was made; it would not have been written with a value out of its bounds.",
        _parity(manifest.parity),
    ]
    return "\n\n".join(sections) + "\n"


def _quality(manifest: Manifest) -> str:
    rows = [
        (test_set, metric, f"{figure['value']:.1f}", f"`{figure['signature']}`")
        for test_set, figures in sorted(manifest.quality.items())
        for metric, figure in sorted(figures.items())
    ]
    return _table(("test set", "metric", "value", "sacrebleu signature"), rows) if rows else "None was measured."


def _tables(manifest: Manifest) -> str:
    tables = manifest.tables
    if tables is None:
        return "None: this architecture has no decomposition by position and token."
    return (
        f"`{tables.id}`, digest `{tables.digest}`, fitted on {tables.sentences:,} sentences ({tables.corpus}); "
        f"fewer than {tables.minimum_count} states make no mean."
    )


def _parity(ledger: dict[str, Any]) -> str:
    rows = []
    for section, figures in sorted(ledger.items()):
        for name, figure in sorted(figures.items()):
            if isinstance(figure, dict) and "value" in figure:
                bounds = [f"{word} {figure[key]:.4g}" for key, word in _BOUND_WORDS.items() if key in figure]
                rows.append((section, name, f"{figure['value']:.4g}", ", ".join(bounds)))
            elif isinstance(figure, int):
                rows.append((section, name, str(figure), ""))
    return _table(("section", "figure", "value", "allowed"), rows)


_BOUND_WORDS = {"at_most": "at most", "at_least": "at least"}


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    cells = ([cell.replace("|", r"\|") for cell in line] for line in lines)  # signatures hold bars
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
