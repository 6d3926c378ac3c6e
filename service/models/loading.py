"""From a bundle to a model that answers: engine, worker thread, use cases."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from bundle import contents
from bundle import manifest as manifests
from bundle.contents import Bundle
from bundle.errors import InvalidBundle
from bundle.manifest import Manifest
from bundle.tokenizer import Tokenizer
from service import drift
from service.admission import Limits
from service.aligner import check_reverse
from service.component_reader import ComponentReader
from service.contrast import Comparer
from service.engine import Engine
from service.errors import BundleRefused
from service.explainer import Explainer, load_tables
from service.metrics import Metrics
from service.models.served_model import ServedModel
from service.scheduler import Scheduler
from service.settings import Settings
from service.threads import division, usable_processors
from service.translator import Translator
from service.what_if import WhatIf

CARD_FILE = "README.md"


@contextlib.asynccontextmanager
async def loaded(settings: Settings, metrics: Metrics) -> AsyncIterator[ServedModel]:
    """Yield the bundle of ``settings.bundle``, ready to answer; its worker threads end with the context.

    Raises:
        StartupError: The bundle, that of the reverse direction, or the device cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        reverse = None
        if settings.reverse_bundle is not None:
            reverse = await load(await read(settings.reverse_bundle), settings, metrics)
            stack.push_async_callback(reverse.close)
        bundle = await read(settings.bundle)
        if reverse is not None:
            check_reverse(bundle.manifest, reverse.manifest)
        model = await load(bundle, settings, metrics, reverse)
        stack.push_async_callback(model.close)
        yield model


async def read(folder: Path, digest: str = "") -> Bundle:
    """Return the bundle in ``folder``.

    Args:
        folder: Where it is.
        digest: Which it must be, by its manifest; empty for any.

    Raises:
        BundleRefused: It is not whole, or another one.
    """
    try:
        bundle = await asyncio.to_thread(contents.read, folder)
    except InvalidBundle as error:
        raise BundleRefused(str(error)) from error
    if digest and manifests.digest(bundle.manifest) != digest:
        raise BundleRefused(f"{folder} was changed while it was being loaded")
    return bundle


async def load(bundle: Bundle, settings: Settings, metrics: Metrics, reverse: ServedModel | None = None) -> ServedModel:
    """Return a model that answers from ``bundle``; the caller closes it.

    Args:
        bundle: What was read.
        settings: Device, threads and limits.
        metrics: Where the model's series go.
        reverse: A model of the reverse direction, for alignments drawn from both.

    Raises:
        BundleRefused: A file is damaged, or not what the manifest says.
        DeviceUnavailable: The device cannot be used.
    """
    manifest = bundle.manifest
    tokenizer = await asyncio.to_thread(load_tokenizer, bundle, manifest)
    tables = await asyncio.to_thread(load_tables, bundle, manifest)
    card = _card(bundle)
    lanes, threads = division(settings.threads or usable_processors())
    engine = await asyncio.to_thread(Engine, bundle, settings.device, threads, metrics)
    limits = Limits(
        # A device has one queue of work, which one batch fills best, and encodes hundreds in the time that one takes.
        lanes=lanes if settings.device == "cpu" else 1,
        encode_beside=4 if settings.device == "cpu" else 1024,
        queue_capacity=settings.queue_capacity,
        batch_hypotheses=settings.batch_hypotheses,
        encode_tokens=settings.encode_tokens,
        queue_tokens=settings.queue_tokens,
        step_tokens=settings.step_tokens,
        watchdog_seconds=settings.watchdog_seconds,
    )
    scheduler = Scheduler(engine, limits, metrics)
    translator = Translator(scheduler, tokenizer, manifest, metrics, None if reverse is None else reverse.translator)
    drift.watch(manifest, metrics)
    return ServedModel(
        folder=bundle.folder,
        manifest=manifest,
        digest=manifests.digest(manifest),
        reverse_digest="" if reverse is None else reverse.digest,
        card=card,
        device=settings.device,
        scheduler=scheduler,
        translator=translator,
        explainer=Explainer(translator, tables, metrics),
        components=ComponentReader(tables, tokenizer),
        comparer=Comparer(translator, tables, metrics),
        what_if=WhatIf(translator, tables, metrics),
    )


def load_tokenizer(bundle: Path | Bundle, manifest: Manifest) -> Tokenizer:
    """Return the tokenizer of a bundle, read or in its folder.

    Raises:
        BundleRefused: The file is damaged, or its ids are not those of the manifest.
    """
    name = "tokenizer.model"
    try:
        tokenizer = Tokenizer(bundle.files[name] if isinstance(bundle, Bundle) else bundle / name)
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
        raise BundleRefused(f"{name} is not what the manifest says; it has\n  " + "\n  ".join(faults))
    return tokenizer


def _card(bundle: Bundle) -> str:
    try:
        return bundle.files[CARD_FILE].decode()
    except UnicodeDecodeError as error:
        raise BundleRefused(f"{CARD_FILE} is not UTF-8 at byte {error.start}") from None
