"""One checkpoint to one bundle: graphs, scales, tables, ledger, figures, manifest, card; whole or absent."""

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bundle import contents
from bundle import manifest as manifests
from bundle import tables as component_tables
from bundle.gold import read_gold
from bundle.manifest import Limits, Manifest, SpecialIds, TablesInfo
from bundle.tables import ComponentTables
from bundle.tokenizer import Tokenizer
from exporters.card import model_card
from exporters.errors import ExportRefused, InvalidExportOptions
from exporters.evaluation import Evaluation, evaluate
from exporters.fidelity import REPORT_FILE, Subject, canonical, fidelity_report, held_out
from exporters.figures import BEAM_SIZE, alignment_figures, quality, reference_histograms
from exporters.fitting import TableSizes, fit
from exporters.forcing import Explained
from exporters.graphs import Graphs, export_graphs
from exporters.half import halve
from exporters.parity import (
    ParityText,
    Section,
    check_batch_invariance,
    compare_precisions,
    compare_with_torch,
    refusals,
)
from exporters.quantization import calibrate, quantize
from exporters.runtime import OnnxModel
from exporters.sampling import TrainingSample, batches, development_pairs, halves, subset, training_sample
from training.checkpoint import Checkpoint, load_checkpoint
from training.config import CorpusConfig
from training.corpus import read_pairs
from training.translation import Translator, source_ids

_CALIBRATION_STRIDE = 100  # one of so many sentences of the training sample
_CALIBRATION_TOKENS = 2_048
_INVARIANCE_SENTENCES = 200


@dataclass(frozen=True)
class GoldFiles:
    """The files of one set of gold alignments (``bundle.gold.read_gold``), and where they start to count words."""

    files: tuple[Path, ...]
    first_index: int = 0


@dataclass(frozen=True)
class ExportOptions:
    """What bundle to make of a checkpoint.

    Attributes:
        precision: ``int8``, ``float16`` (for graphics processors) or ``float32``.
        bundle_id: Stable name; empty for the language pair, as in ``en-fr``.
        version: Version of this bundle under that name.
        tables_corpora: Training text for the component tables; empty for the training corpora of the run.
        tables_sentences: Sentences of it to fit on.
        evaluations: Test sets by name, to report on and to judge a precision by; empty for the run's development sets.
        gold_alignments: Gold alignments to measure attention against, by name. The first set chooses the decoder step
            that attention is read at; without any it is the one that the architecture names.
        parity_sentences: Development sentences for the comparison with torch and the reference histograms.
        fidelity_sentences: Development sentences for the fidelity report; 0 for no report.
        processes: Processes that fit the tables.
        replace: Whether an existing bundle of this path may be replaced.
    """

    precision: str = "int8"
    bundle_id: str = ""
    version: str = "1"
    tables_corpora: tuple[CorpusConfig, ...] = ()
    tables_sentences: int = 100_000
    evaluations: Mapping[str, CorpusConfig] = field(default_factory=dict)
    gold_alignments: Mapping[str, GoldFiles] = field(default_factory=dict)
    parity_sentences: int = 500
    fidelity_sentences: int = 300
    processes: int = 1
    replace: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be made.

        Raises:
            InvalidExportOptions: A value is out of range.
        """
        if self.precision not in manifests.PRECISIONS:
            raise InvalidExportOptions(
                f"precision is {self.precision!r}; it must be one of {', '.join(manifests.PRECISIONS)}."
            )
        if min(self.tables_sentences, self.parity_sentences, self.processes) < 1:
            raise InvalidExportOptions("tables_sentences, parity_sentences and processes must be at least 1.")
        if self.fidelity_sentences < 0:
            raise InvalidExportOptions(f"fidelity_sentences is {self.fidelity_sentences}; give 0 for none, or more.")


def export(checkpoint_folder: Path, bundle_folder: Path, options: ExportOptions) -> Manifest:
    """Write the bundle of a checkpoint and return its manifest.

    The bundle is made in a folder beside its place, verified, and renamed; nothing is left of one that is refused.

    Raises:
        ExportRefused: The bundle fails its own parity ledger.
        InvalidExportOptions: The place is taken, or the text asked for is not there.
        TrainingError: The checkpoint or a corpus cannot be read.
    """
    if bundle_folder.exists() and not options.replace:
        raise InvalidExportOptions(f"{bundle_folder} exists; remove it, choose another place or ask to replace it.")
    if bundle_folder.exists() and not (bundle_folder / manifests.MANIFEST_FILE).exists():
        raise InvalidExportOptions(f"{bundle_folder} holds no bundle, so it is not replaced; choose another place.")
    checkpoint = load_checkpoint(checkpoint_folder)
    partial = bundle_folder.with_name(f".{bundle_folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        _Export(checkpoint, options, partial).write()
        manifest = contents.read(partial).manifest
        if bundle_folder.exists():
            shutil.rmtree(bundle_folder)
        partial.rename(bundle_folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    tell(f"wrote {bundle_folder}: {sum(entry.size_bytes for entry in manifest.files.values()) / 1e6:.1f} MB")
    return manifest


def tell(text: str) -> None:
    """Print one line of progress for a person."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class _Export:
    """The steps from a checkpoint to the files of ``folder``."""

    def __init__(self, checkpoint: Checkpoint, options: ExportOptions, folder: Path) -> None:
        self.checkpoint, self.options, self.folder = checkpoint, options, folder
        self.model, self.data = checkpoint.model, checkpoint.config.data
        self.bundle_id = options.bundle_id or f"{self.data.source_language}-{self.data.target_language}"
        self.tokenizer = Tokenizer(checkpoint.vocabulary)
        ids = (getattr(self.tokenizer, f"{name}_id") for name in ("pad", "unk", "bos", "eos"))
        self.special_ids = SpecialIds(*ids)
        self.limits = Limits(self.data.max_source_tokens + 1, self.data.max_target_tokens + 1)
        self.gold = {name: read_gold(gold.files, gold.first_index) for name, gold in options.gold_alignments.items()}
        self.pairs = development_pairs(self.data.dev, options.parity_sentences)
        sources, targets = ([pair[side] for pair in self.pairs] for side in (0, 1))
        self.text = ParityText(source_ids(self.tokenizer, sources), source_ids(self.tokenizer, targets))

    def write(self) -> None:
        """Write every file of the bundle.

        Raises:
            ExportRefused: A figure of the ledger is out of its bounds.
        """
        tell("exporting the graphs")
        graphs = export_graphs(self.model)
        self._check_manifest(self._manifest(graphs, None))
        exact = shipped = self._load(graphs)
        tell(f"comparing with torch on {len(self.pairs)} sentences")
        ledger: dict[str, Section] = {"float32": compare_with_torch(self.model, self._translator(exact), self.text)}
        sample = self._training_sample()
        precision = self.options.precision
        if precision != "float32":
            rounded, ledger[precision] = self._rounded(graphs, exact, sample)
            shipped = self._load(rounded)
        if precision != "float16":  # made for graphics processors, for which nothing is promised of it
            tell("checking batch invariance")
            some = self.text.sources[:_INVARIANCE_SENTENCES]
            ledger["batch_invariance"] = check_batch_invariance(self._translator(shipped), some)
        tables, half_tables = self._fit(shipped, sample)
        explained = Explained(tables, self.model.decoder_token_offset, self.special_ids.bos) if tables else None
        evaluations = self._evaluations(shipped, precision)
        if shipped is not exact:
            exact_evaluations = self._evaluations(exact, "float32")
            tell(f"comparing {precision} with float32")
            ledger[precision]["test_sets"] = compare_precisions(precision, exact_evaluations, evaluations, explained)
        if reasons := refusals(ledger):
            raise ExportRefused(reasons)
        tell("drawing reference histograms")
        results = self._translator(shipped).translate(self.text.sources, BEAM_SIZE)
        histograms = reference_histograms(shipped, self.text.sources, results, explained)
        self._write_files(shipped, tables)
        fidelity = self._fidelity(shipped, sample, explained, half_tables)
        tell("measuring alignments")
        shift, alignments = alignment_figures(shipped, self.tokenizer, self.gold, self.model.alignment_shift)
        figures = {name: quality(evaluation.scores) for name, evaluation in evaluations.items()}
        manifest = replace(
            self._manifest(graphs, tables),
            alignment_shift=shift,
            parity=ledger,
            quality={name: figures.get(name, {}) | alignments.get(name, {}) for name in {**figures, **alignments}},
            reference={"corpus": _names(self.data.dev), "sentences": len(self.pairs), "histograms": histograms},
        )
        (self.folder / "README.md").write_text(model_card(manifest, fidelity), encoding="utf-8")
        manifests.write(self.folder, replace(manifest, files=manifests.file_digests(self.folder)))

    def _check_manifest(self, manifest: Manifest) -> None:
        """Write a draft, so that an impossible value is refused before an hour of work and not after it."""
        pending = dict.fromkeys(manifests.REQUIRED_FILES, manifests.FileDigest("0" * 64, 0))
        manifests.write(self.folder, replace(manifest, files=pending))

    def _load(self, graphs: Graphs) -> OnnxModel:
        return OnnxModel(graphs.serialized(), self.special_ids)

    def _rounded(self, graphs: Graphs, exact: OnnxModel, sample: TrainingSample) -> tuple[Graphs, Section]:
        """Return ``graphs`` in the precision asked for, and what the ledger keeps of how that was done."""
        if self.options.precision == "float16":
            return halve(graphs), {}
        tell("measuring activations and quantizing")
        calibration = subset(sample.corpus, np.arange(0, len(sample.corpus), _CALIBRATION_STRIDE))
        bounds = calibrate(graphs, exact, batches(calibration, _CALIBRATION_TOKENS))
        return quantize(graphs, bounds), {"activation_bounds": bounds}

    def _translator(self, model: OnnxModel) -> Translator:
        return Translator(model, self.special_ids, self.limits.max_target_tokens)

    def _training_sample(self) -> TrainingSample:
        corpora = self.options.tables_corpora or self.data.train
        return training_sample(corpora, self.options.tables_sentences, self.checkpoint.vocabulary, self.data)

    def _fit(
        self, model: OnnxModel, sample: TrainingSample
    ) -> tuple[ComponentTables | None, tuple[ComponentTables, ...]]:
        """Return the tables, and those of either half of the text if the fidelity report asks for them."""
        if self.model.score_kind != "bilinear":
            return None, ()
        sizes = TableSizes(
            self.limits.max_source_tokens,
            self.limits.max_target_tokens,
            self.model.sizes["vocabulary"],
            self.model.sizes["key"],
            self.model.decoder_token_offset,
        )
        name, parts = f"{self.bundle_id}-{self.options.version}", halves(sample)
        first, second = (fit(model, half, sizes, self.options.processes, tell) for half in parts)
        half_tables: tuple[ComponentTables, ...] = ()
        if self.options.fidelity_sentences:
            half_tables = first.tables(name, parts[0].description), second.tables(name, parts[1].description)
        # Sums are exact, so these are the tables that one pass over the whole text would give.
        return first.merged(second).tables(name, sample.description), half_tables

    def _fidelity(
        self,
        model: OnnxModel,
        sample: TrainingSample,
        explained: Explained | None,
        half_tables: tuple[ComponentTables, ...],
    ) -> Section | None:
        """Write the report, if one is wanted and this architecture's attention can be decomposed, and return it."""
        if explained is None or not half_tables:
            return None
        pairs = development_pairs(self.data.dev, self.options.fidelity_sentences)
        sources = source_ids(self.tokenizer, [source for source, _ in pairs])
        text = held_out(sources, _names(self.data.dev), sample.corpus)
        subject = Subject(
            model,
            self.tokenizer,
            self.data.target_language,
            self.limits.max_target_tokens,
            explained,
            half_tables,
        )
        report = fidelity_report(subject, text, tell)
        (self.folder / REPORT_FILE).write_bytes(canonical(report))
        return report

    def _evaluations(self, model: OnnxModel, precision: str) -> dict[str, Evaluation]:
        """Translate every test set with ``model``."""
        found = {}
        for name, corpus in (self.options.evaluations or _development_sets(self.data.dev)).items():
            pairs, _ = read_pairs(corpus)
            tell(f"translating {name} in {precision}: {len(pairs):,} sentences")
            found[name] = evaluate(model, self.tokenizer, self.limits.max_target_tokens, pairs)
            tell(f"{name}: BLEU {found[name].scores.bleu:.2f}, chrF {found[name].scores.chrf:.2f}")
        return found

    def _write_files(self, model: OnnxModel, tables: ComponentTables | None) -> None:
        for name, content in model.graphs.items():
            (self.folder / f"{name}.onnx").write_bytes(content)
        (self.folder / "tokenizer.model").write_bytes(self.checkpoint.vocabulary)
        if tables is not None:
            component_tables.write(self.folder / manifests.TABLES_FILE, tables)
            (self.folder / manifests.TABLES_FILE).chmod(0o644)  # safetensors leaves it to the owner alone

    def _manifest(self, graphs: Graphs, tables: ComponentTables | None) -> Manifest:
        """Return the manifest without what is measured and without the files."""
        model, data = self.model, self.data
        return Manifest(
            format_version=manifests.FORMAT_VERSION,
            bundle_id=self.bundle_id,
            version=self.options.version,
            architecture=model.architecture,
            sizes=dict(model.sizes),
            source_language=data.source_language,
            target_language=data.target_language,
            special_ids=self.special_ids,
            state=tuple(manifests.StateTensor(tensor.name, tensor.size) for tensor in model.state),
            graphs=graphs.signature,
            score_kind=model.score_kind,
            decoder_token_offset=model.decoder_token_offset,
            alignment_shift=model.alignment_shift,
            limits=self.limits,
            precision=self.options.precision,
            files={},
            parity={},
            quality={},
            training={
                "data": _names(data.train),
                "licence": data.licence,
                "credit": data.credit,
                "steps": self.checkpoint.progress.step,
            },
            reference={},
            tables=_origin(tables) if tables else None,
        )


def _origin(tables: ComponentTables) -> TablesInfo:
    return TablesInfo(tables.id, tables.digest, tables.corpus, tables.sentences, tables.minimum_count)


def _development_sets(corpora: Sequence[CorpusConfig]) -> dict[str, CorpusConfig]:
    """Return corpora by the names that training reports them under: folder and stem."""
    return {f"{corpus.source.parent.name}-{corpus.source.name.split('.')[0]}": corpus for corpus in corpora}


def _names(corpora: Sequence[CorpusConfig]) -> str:
    """Return corpora as a reader knows them: folder and file, without this machine's paths."""
    names = []
    for corpus in corpora:
        part = f", the first {corpus.limit:,} pairs" if corpus.limit else ""
        weight = f" (weight {corpus.weight:g})" if corpus.weight != 1 else ""
        names.append(f"{corpus.source.parent.name}/{corpus.source.name}{part}{weight}")
    return "; ".join(names)
