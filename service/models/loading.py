"""From a folder to a model that answers: bundle, engine, worker thread, use cases."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from bundle import manifest as manifests
from bundle.errors import InvalidBundle
from bundle.manifest import Manifest
from bundle.tokenizer import Tokenizer
from service.aligner import check_reverse
from service.component_reader import ComponentReader
from service.contrast import Comparer
from service.engine import Engine
from service.errors import BundleRefused
from service.explainer import Explainer, load_tables
from service.metrics import Metrics
from service.models.served_model import ServedModel
from service.scheduler import Limits, Scheduler
from service.settings import Settings
from service.translator import Translator
from service.what_if import WhatIf


@contextlib.asynccontextmanager
async def loaded(settings: Settings, metrics: Metrics) -> AsyncIterator[ServedModel]:
    """Yield the bundle that ``settings`` name, ready to answer; its worker threads end with the context.

    Raises:
        StartupError: The bundle, that of the reverse direction, or the device cannot be used.
    """
    folder = settings.bundle
    async with contextlib.AsyncExitStack() as stack:
        reverse = None
        if settings.reverse_bundle is not None:
            reverse = await stack.enter_async_context(_translator(settings.reverse_bundle, settings, metrics))
        translator = await stack.enter_async_context(_translator(folder, settings, metrics, reverse))
        manifest = translator.manifest
        if reverse is not None:
            check_reverse(manifest, reverse.manifest)
        tables = load_tables(folder, manifest)
        yield ServedModel(
            manifest=manifest,
            digest=manifests.digest(manifest),
            card=(folder / "README.md").read_text("utf-8"),
            device=settings.device,
            translator=translator,
            explainer=Explainer(translator, tables, metrics),
            components=ComponentReader(tables, translator.tokenizer),
            comparer=Comparer(translator, tables, metrics),
            what_if=WhatIf(translator, tables, metrics),
        )


@contextlib.asynccontextmanager
async def _translator(
    folder: Path, settings: Settings, metrics: Metrics, reverse: Translator | None = None
) -> AsyncIterator[Translator]:
    """Yield the bundle in ``folder`` with a worker thread of its own, which ends with the context."""
    engine = Engine(folder, settings.device, settings.threads, metrics)
    limits = Limits(settings.queue_capacity, settings.batch_hypotheses, settings.encode_tokens)
    scheduler = Scheduler(engine, limits, metrics)
    try:
        tokenizer = load_tokenizer(folder, engine.manifest)
        yield Translator(scheduler, tokenizer, engine.manifest, metrics, reverse)
    finally:
        await scheduler.close()


def load_tokenizer(folder: Path, manifest: Manifest) -> Tokenizer:
    """Return the tokenizer of the bundle in ``folder``.

    Raises:
        BundleRefused: The file is damaged, or its ids are not those of the manifest.
    """
    file = folder / "tokenizer.model"
    try:
        tokenizer = Tokenizer(file)
    except InvalidBundle as error:
        raise BundleRefused(str(error)) from error
    special = manifest.special_ids
    compared = (
        ("a vocabulary of", tokenizer.vocabulary_size, manifest.sizes["vocabulary"]),
        ("the pad id", tokenizer.pad_id, special.pad),
        ("the unk id", tokenizer.unk_id, special.unk),
        ("the bos id", tokenizer.bos_id, special.bos),
        ("the eos id", tokenizer.eos_id, special.eos),
    )
    if faults := [f"{what} {has}; the manifest says {said}" for what, has, said in compared if has != said]:
        raise BundleRefused(f"{file} is not what the manifest says; it has\n  " + "\n  ".join(faults))
    return tokenizer
