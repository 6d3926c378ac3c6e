"""python -m exporters CHECKPOINT BUNDLE: turn a checkpoint into a bundle, or say why it cannot be one."""

import argparse
import sys
from pathlib import Path

from bundle.errors import BundleError
from exporters.errors import ExportError, InvalidExportOptions
from exporters.export import ExportOptions, GoldFiles, export
from training.config import CorpusConfig
from training.errors import TrainingError

_ONE_BASED = ":one-based"


def main() -> int:
    """Run the command; errors a person can mend are printed without a traceback."""
    arguments = _parser().parse_args()
    try:
        options = ExportOptions(
            precision=arguments.precision,
            bundle_id=arguments.id,
            version=arguments.bundle_version,
            tables_corpora=tuple(_corpus(text) for text in arguments.tables_corpus),
            tables_sentences=arguments.tables_sentences,
            evaluations=dict(_evaluation(text) for text in arguments.evaluation),
            gold_alignments=dict(_gold(text) for text in arguments.gold_alignments),
            fidelity_sentences=arguments.fidelity_sentences,
            processes=arguments.processes,
            replace=arguments.replace,
        )
        export(arguments.checkpoint, arguments.bundle, options)
    except (BundleError, ExportError, TrainingError) as error:
        print(f"exporters: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m exporters", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder, for example runs/en-fr/best")
    parser.add_argument("bundle", type=Path, help="bundle folder to make")
    parser.add_argument("--precision", default="int8", help="int8 (default), float16 or float32")
    parser.add_argument("--id", default="", help="name of the bundle; by default the language pair")
    parser.add_argument("--bundle-version", default="1", help="version of the bundle under that name (1)")
    parser.add_argument(
        "--tables-corpus",
        action="append",
        default=[],
        metavar="CORPUS",
        help="text to fit the component tables on: one TSV file, or SOURCE,TARGET; repeatable; by default the "
        "training text of the run",
    )
    parser.add_argument("--tables-sentences", type=int, default=100_000, help="sentences of it (100000)")
    parser.add_argument(
        "--evaluation",
        action="append",
        default=[],
        metavar="NAME=CORPUS",
        help="test set to report BLEU and chrF on, and on which int8 or float16 may lose at most 0.3 BLEU; repeatable; "
        "by default the development sets of the run",
    )
    parser.add_argument(
        "--gold-alignments",
        action="append",
        default=[],
        metavar="NAME=FILES[:one-based]",
        help="gold word alignments to report the error rate of attention on, as one TSV file, SENTENCES,LINKS or "
        "SOURCE,TARGET,LINKS; repeatable; the first set chooses the decoder step that attention is read at",
    )
    parser.add_argument(
        "--fidelity-sentences",
        type=int,
        default=300,
        metavar="N",
        help="development sentences that the fidelity report is measured on; 0 leaves it out (300)",
    )
    parser.add_argument("--processes", type=int, default=1, help="processes that fit the tables (1)")
    parser.add_argument("--replace", action="store_true", help="replace the bundle if there is one")
    return parser


def _evaluation(text: str) -> tuple[str, CorpusConfig]:
    name, separator, corpus = text.partition("=")
    if not (name and separator and corpus):
        raise InvalidExportOptions(f"--evaluation is {text!r}; it must be NAME=FILE or NAME=SOURCE,TARGET.")
    return name, _corpus(corpus)


def _gold(text: str) -> tuple[str, GoldFiles]:
    name, separator, rest = text.partition("=")
    files = rest.removesuffix(_ONE_BASED)
    if not (name and separator and files):
        raise InvalidExportOptions(
            f"--gold-alignments is {text!r}; it must be NAME=FILE, NAME=SENTENCES,LINKS or NAME=SOURCE,TARGET,LINKS, "
            f"and end in {_ONE_BASED} if words count from 1."
        )
    return name, GoldFiles(tuple(map(Path, files.split(","))), first_index=int(files != rest))


def _corpus(text: str) -> CorpusConfig:
    source, _, target = text.partition(",")
    return CorpusConfig(Path(source), Path(target) if target else None)


if __name__ == "__main__":
    sys.exit(main())
