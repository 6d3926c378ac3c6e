"""A whole, valid bundle in a second: a trained tokenizer, the untrained graphs of ``tiny_model``, fitted tables."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import sentencepiece
from prometheus_client import CollectorRegistry

from bundle import manifest as manifests
from bundle import tables
from bundle.manifest import Graph, Limits, Manifest, SpecialIds, StateTensor, TablesInfo, Tensor
from bundle.search import EncodedBatch, SearchOptions, State, StepOutput, search
from bundle.sessions import own_states
from bundle.tokenizer import Tokenizer
from service.decoder_state import Wanted
from service.engine import Engine
from service.metrics import Metrics
from tests.tiny_model import TinyModel

SENTENCES = (
    "The house is small, but the garden is big.",
    "I don't know where he lives.",
    "It's raining again; take your umbrella!",
    "She wants to learn French before summer.",
    "How many brothers do you have?",
    "We will see each other tomorrow at noon.",
    "My father's car is older than yours.",
    "La maison est petite, mais le jardin est grand.",
    "Je ne sais pas où il habite.",
    "Il pleut encore : prends ton parapluie !",
    "Combien de frères as-tu ?",
    "L'été prochain, elle veut apprendre le français.",
)
MAX_SOURCE_TOKENS = 48
MAX_TARGET_TOKENS = 40
_SPECIAL = SpecialIds(pad=0, unk=1, bos=2, eos=3)
_VOCABULARY = 120


@dataclass(frozen=True)
class TinyBundle:
    """What to build; the defaults are those of the ``tiny_bundle`` fixture.

    Attributes:
        hidden: Size of encoder and decoder states.
        key: Size of the attention keys.
        with_tables: Whether to fit component tables, on ``SENTENCES`` and what the model makes of them.
        with_posterior: Whether the step gives emission scores.
    """

    hidden: int = 32
    key: int = 16
    with_tables: bool = True
    with_posterior: bool = False

    def write(self, folder: Path) -> Path:
        """Write the bundle into ``folder`` and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        TinyModel(_VOCABULARY, self.hidden, self.key, emission=self.with_posterior).write(folder)
        (folder / "tokenizer.model").write_bytes(_tokenizer_model())
        (folder / "README.md").write_text("A test bundle: untrained, it translates into nonsense.\n")
        manifest = self._manifest(folder)
        manifests.write(folder, manifest)
        if self.with_tables:
            fitted = _fit(folder, manifest, self.key)
            tables.write(folder / manifests.TABLES_FILE, fitted)
            info = TablesInfo(fitted.id, fitted.digest, fitted.corpus, fitted.sentences, fitted.minimum_count)
            manifests.write(folder, replace(manifest, files=manifests.file_digests(folder), tables=info))
        return folder

    def _manifest(self, folder: Path) -> Manifest:
        return Manifest(
            format_version=manifests.FORMAT_VERSION,
            bundle_id="tiny",
            version="1",
            architecture="aed",
            sizes={"vocabulary": _VOCABULARY, "hidden": self.hidden, "key": self.key},
            source_language="en",
            target_language="fr",
            special_ids=_SPECIAL,
            state=tuple(StateTensor(f"decoder_state_{layer}", self.hidden) for layer in (0, 1)),
            graphs={name: _graph(folder / f"{name}.onnx") for name in manifests.GRAPHS},
            score_kind="bilinear",
            decoder_token_offset=1,
            alignment_shift=0,
            limits=Limits(MAX_SOURCE_TOKENS, MAX_TARGET_TOKENS),
            precision="float32",
            files=manifests.file_digests(folder),
            parity={},
            quality={},
            training={"data": "none", "licence": "none", "credit": "none"},
            reference={},
            tables=None,
        )


def _tokenizer_model() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=_VOCABULARY,
        character_coverage=1.0,
        pad_id=_SPECIAL.pad,
        unk_id=_SPECIAL.unk,
        bos_id=_SPECIAL.bos,
        eos_id=_SPECIAL.eos,
        minloglevel=2,
    )
    return model.getvalue()


def _graph(file: Path) -> Graph:
    graph = onnx.load(file).graph
    dtypes: dict[int, str] = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64"}

    def tensors(values: Iterable[onnx.ValueInfoProto]) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(
                value.name,
                dtypes[value.type.tensor_type.elem_type],
                tuple(axis.dim_param or str(axis.dim_value) for axis in value.type.tensor_type.shape.dim),
            )
            for value in values
        )

    optional = {constant.name for constant in graph.initializer}
    needed = [value for value in graph.input if value.name not in optional]
    return Graph(inputs=tensors(needed), outputs=tensors(graph.output))


def _fit(folder: Path, manifest: Manifest, key: int) -> tables.ComponentTables:
    engine = Engine(folder, "cpu", 1, Metrics.on(CollectorRegistry()))
    tokenizer = Tokenizer(folder / "tokenizer.model")
    encoder = tables.Sums(MAX_SOURCE_TOKENS, _VOCABULARY, key)
    decoder = tables.Sums(MAX_TARGET_TOKENS, _VOCABULARY, key)

    def step(encoded: EncodedBatch, previous: np.ndarray, state: State, candidates: int) -> StepOutput:
        return engine.step(encoded, previous, own_states(state), Wanted(candidates, attention=True))

    for sentence in SENTENCES:
        source_ids = [*tokenizer.encode(sentence).token_ids, _SPECIAL.eos]
        encoded = engine.encode([source_ids])
        keys = encoded.encoder_side["attention_keys"][0, : len(source_ids)]
        encoder.add(keys, np.arange(len(source_ids)), np.array(source_ids))
        result = search(step, encoded, [SearchOptions(20, beam_size=1)], _SPECIAL)[0]
        read = np.array([_SPECIAL.bos, *result.hypotheses[0].token_ids[:-1]])
        queries = result.traces[0].attention_queries
        assert queries is not None
        decoder.add(queries, np.arange(len(read)), read)
    return tables.ComponentTables(encoder.finish(2), decoder.finish(2), "tiny-1", "twelve sentences", len(SENTENCES))
