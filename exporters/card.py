"""The model card: a bundle's README.md, generated from its manifest and its fidelity report, and nothing else."""

from collections.abc import Sequence
from typing import Any

from bundle.alignment import CONFIDENT
from bundle.manifest import Manifest


def model_card(manifest: Manifest, fidelity: dict[str, Any] | None) -> str:
    """Return the card of the bundle that ``manifest`` describes, in Markdown; ``fidelity`` is its report, if any."""
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
        "* Attention is not alignment: links are drawn from attention, or from the posterior made of it, and a person "
        "would draw some otherwise.\n"
        "* Decompositions rest on the component tables below; other text would give other tables.",
        "## Sizes",
        _table(("what", "size"), [(name, f"{size:,}") for name, size in sorted(manifest.sizes.items())]),
        "## Data, licence, credit",
        "\n".join(f"* {name}: {value}" for name, value in sorted(manifest.training.items())),
        "## Component tables",
        _tables(manifest),
        "## Fidelity",
        _fidelity(fidelity) if fidelity else "Not measured.",
        *_precision_sections(manifest),
        "## Parity",
        "Measured when the bundle was made; it would not have been written with a value out of its bounds.",
        _parity(manifest.parity),
    ]
    return "\n\n".join(sections) + "\n"


def _quality(manifest: Manifest) -> str:
    rows = [
        (test_set, metric, f"{figure['value']:.3f}" if metric == "AER" else f"{figure['value']:.1f}", _how(figure))
        for test_set, figures in sorted(manifest.quality.items())
        for metric, figure in sorted(figures.items())
    ]
    return _table(("test set", "metric", "value", "measured"), rows) if rows else "None was measured."


def _how(figure: dict[str, Any]) -> str:
    if "signature" in figure:
        return f"sacrebleu `{figure['signature']}`"
    others = [(f"argmax of attention at step +{row['shift']}", row) for row in figure["table"]]
    if figure["posterior_argmax"]:
        others.insert(0, ("argmax of posterior", figure["posterior_argmax"]))
    others += [(f"{baseline} links", figure[baseline]) for baseline in ("diagonal", "uniform")]
    beside = "; ".join(f"{name} {row['alignment_error_rate']:.3f}" for name, row in others)
    drawn = f"argmax of attention at step +{figure['shift']}"
    if figure["evidence"] == "posterior":
        drawn = f"posterior of at least {CONFIDENT}"
    return (
        f"{figure['sentences']} sentence pairs, target forced, links by {drawn}: "
        f"precision {figure['precision']:.3f}, recall {figure['recall']:.3f}, {figure['links']:,} links ({beside})"
    )


def _tables(manifest: Manifest) -> str:
    tables = manifest.tables
    if tables is None:
        return "None: this architecture has no decomposition by position and token."
    return (
        f"`{tables.id}`, digest `{tables.digest}`, fitted on {tables.sentences:,} sentences ({tables.corpus}); "
        f"fewer than {tables.minimum_count} states make no mean."
    )


def _fidelity(report: dict[str, Any]) -> str:
    deletion = report["attention_deletion"]["any_position"]
    figures: list[tuple[str, dict[str, float]]] = [
        (f"change of log p(token) in nats, attention taken from the position {name}", found["1"][_CHANGE])
        for name, found in ((_POSITIONS[order], deletion[order]) for order in _POSITIONS if order in deletion)
    ]
    figures += [
        (f"best token unchanged with {kind.replace('_', ' ')} attention, {words} words", shares[words])
        for kind in ("permuted", "uniform", "zero_max")
        for shares in [report["counterfactual_attention"][kind]["unchanged_share"]]
        for words in ("function", "content", "word")
        if words in shares
    ]
    figures += [
        (f"comprehensiveness (AOPC) of source tokens by {order}", found["comprehensiveness_probability"])
        for order, found in sorted(report["source_deletion"].items())
        if isinstance(found, dict)
    ]
    figures += [
        (f"the first source token by {name} is the one whose removal hurts most", found["same_first_share"])
        for name, found in sorted(report["occlusion_agreement"].items())
        if name in ("attention", "posterior")
    ]
    figures.append(("share of delta in the shape of attention", report["decomposition"]["delta_share"]))
    rows = [(name, f"{f['mean']:.3f}", f"{f['low']:.3f} to {f['high']:.3f}") for name, f in figures]
    return (
        f"On {report['about']['sentences']:,} held-out sentences, translated by the model itself; all figures are in "
        "`fidelity.json`, and docs/fidelity.md says what they mean and where attention should not be believed.\n\n"
        + _table(("figure", "value", "95 % interval"), rows)
    )


_CHANGE = "log_probability_change_nats"
_POSITIONS = {
    "top": "attended to most",
    "top_by_posterior": "first by posterior",
    "random": "drawn at random",
    "least": "attended to least",
}


def _precision_sections(manifest: Manifest) -> list[str]:
    """Return what the precision costs on each test set, with its heading; nothing for a bundle in float32."""
    precision = manifest.precision
    sections = manifest.parity.get(precision, {}).get("test_sets", {})
    if not sections:
        return []
    rows = []
    for name, figures in sorted(sections.items()):
        exact, rounded, loss = (figures[key] for key in ("bleu_float32", f"bleu_{precision}", "bleu_loss"))
        drifts = (figures.get(f"{kind}_drift") for kind in _DRIFTS)
        rows.append(
            (
                name,
                *(f"{figure['value']:.2f}" for figure in (exact, rounded, loss)),
                f"{loss['low']:.2f} to {loss['high']:.2f}",
                f"{exact['value'] - rounded['at_least']:.1f}",
                f"{figures['identical_translations']['value']:.3f}",
                *(f"{drift['value']:.4f}" if drift else "–" for drift in drifts),
            )
        )
    header = ("test set", "BLEU float32", f"BLEU {precision}", "loss", "95 % interval", "allowed", "same translations")
    interval = next(iter(sections.values()))["bleu_loss"]["interval"]
    return [
        f"## What {precision} costs",
        f"Against float32, all sentences translated by both. The loss is in BLEU points ({interval}). Drift is how far "
        "attention and posterior (total variation) and the nine shares (absolute difference) move on average, with "
        "references forced.",
        _table((*header, *(f"{kind} drift" for kind in _DRIFTS)), rows),
    ]


_DRIFTS = ("alignment", "posterior", "decomposition")


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
