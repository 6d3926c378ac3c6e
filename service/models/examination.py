"""Trying a bundle out before the service does: in a process of its own, with bounds on memory and time.

Three libraries in C++ and Rust parse a bundle's files. One that is malformed may crash them, keep them busy for ever or
make them take all memory; here that ends a child process, and the bundle is refused. ``python -m
service.models.examination FOLDER`` verifies, loads and translates, and prints its verdict as a line of JSON.

This is no jail: a parser that can be made to run foreign code runs it with the service's rights (docs/security.md).
"""

import asyncio
import json
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from bundle.errors import BundleError
from bundle.manifest import Manifest
from bundle.search import SearchOptions
from service.batch import Decoded, Job
from service.errors import BundleRefused, InvalidRequest, ServiceError
from service.metrics import Metrics
from service.models.loading import loaded
from service.models.served_model import ServedModel
from service.settings import Settings
from service.translation import TranslationOptions

_MEMORY_BYTES = 2 << 30  # of address space, besides what the process has when it starts ...
_MEMORY_PER_BYTE = 6  # ... and this much for each byte of the bundle: as read, as parsed, as prepared to be run
_PROCESSOR_SECONDS = 30  # twenty times what ours takes
_PROCESSOR_SECONDS_PER_GIB = 60
_PATIENCE = 3  # seconds on the clock for each of processor time: the machine has other work
_LARGEST_BYTES = 4 << 30  # of a bundle: what says to be larger is refused without being read
_MOST_SAID_BYTES = 32 << 10  # of a verdict
_MOST_FAULT_CHARACTERS = 4000
_ROOT = Path(__file__).parent.parent.parent
_KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "SYSTEMROOT", "TMPDIR")

_TEXTS = (
    "1",
    "The house is small, but the garden is big.",
    "Où est-il ? Ça va, l'été ; « naïve » œuvre, Straße, ﬁn.",
    "你好，世界。 Привет, мир! שלום עולם 👩‍👩‍👧 e\u0301 \u00ad\u200b x",
    " 12 345,67 € (50 %) - http://example.org/a?b=c#d ... !!! ",
    "word " * 40,
)
_SEED = 6
_SENTENCES = ((1, 8), (4, 24), (16, 8))  # beam size and tokens of the random sentences that are tried
_MOST_TOKENS = 64
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Examined:
    """A bundle that passed.

    Attributes:
        name: Its id.
        version: Its version under that name.
        digest: Of its manifest: what is loaded must have the same.
        size_bytes: Of its files.
    """

    name: str
    version: str
    digest: str
    size_bytes: int


async def examine(folder: Path) -> Examined:
    """Return what the bundle in ``folder`` is, after a child process has tried it out.

    Raises:
        BundleRefused: It is damaged or does not work, or the child crashed or was stopped at a limit.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", __name__, os.fspath(folder.absolute())),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_MOST_SAID_BYTES,
        cwd=_ROOT,
        env={name: os.environ[name] for name in _KEPT if name in os.environ} | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    try:
        said = await process.stdout.readline()
        await process.wait()
    except ValueError:  # a line that does not end
        said = b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _verdict(folder, said, process.returncode or 0)


def examine_here(folder: Path) -> Examined:
    """Return what the bundle in ``folder`` is, after trying it out in this process, which may not survive it.

    Raises:
        BundleRefused: It is damaged, or does not work.
    """
    return asyncio.run(_examine_here(folder))


def limit_this_process(size_bytes: int) -> None:
    """Let this process take no more than a bundle of that size needs, and write nothing; there is no way back."""
    seconds = _PROCESSOR_SECONDS + _PROCESSOR_SECONDS_PER_GIB * size_bytes // (1 << 30)
    memory = _address_space() + _MEMORY_BYTES + _MEMORY_PER_BYTE * size_bytes
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        _, most = resource.getrlimit(limit)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(limit, (value, most))
    signal.alarm(_PATIENCE * seconds)  # ends a process that hangs in a library as well


def main() -> None:
    """Examine the folder on the command line and print the verdict."""
    folder = Path(sys.argv[1])
    verdict = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # libraries may have something to say, too
    os.nice(10)  # callers come first
    if (victim := Path("/proc/self/oom_score_adj")).exists():
        victim.write_text("1000")  # if memory runs out all the same, this process goes and not the service
    limit_this_process(min(_size(folder), _LARGEST_BYTES))
    try:
        said: dict[str, object] = vars(examine_here(folder))
    except BundleRefused as error:
        said = {"refused": str(error)[:_MOST_FAULT_CHARACTERS]}
    print(json.dumps(said), file=verdict, flush=True)
    os._exit(0)  # not by way of whatever a library does at its end


async def _examine_here(folder: Path) -> Examined:
    settings = Settings(bundle=folder, reverse_bundle=None, device="cpu", threads=1)
    try:
        async with loaded(settings, Metrics.on(CollectorRegistry())) as model:
            await _try(model)
            manifest = model.manifest
            return Examined(manifest.bundle_id, manifest.version, model.digest, model.size_bytes)
    except BundleRefused:
        raise
    except (ServiceError, BundleError) as error:
        raise BundleRefused(f"{folder} was loaded but cannot translate: {error}") from error
    except MemoryError:
        raise BundleRefused(f"{folder} takes more memory than its size allows") from None
    except Exception as error:  # a bundle that makes the service fail in a way that nobody foresaw is refused as well
        raise BundleRefused(f"{folder} makes the service fail: {type(error).__name__}: {error}") from error


async def _try(model: ServedModel) -> None:
    """Translate and explain with ``model``.

    Raises:
        BundleRefused: An answer is not finite, or not made of the model's tokens.
        ServiceError: There is none.
    """
    attention = model.manifest.score_kind != "none"
    translated = 0
    for text in _TEXTS:
        for options in (TranslationOptions(alignment=attention), TranslationOptions(beam_size=1)):
            try:
                translation = await model.translator.translate(text, options)
            except InvalidRequest:  # too long for a small model, or all of it outside of its alphabet
                continue
            translated += 1
            _check_finite([hypothesis.log_probability for hypothesis in translation.hypotheses])
        if attention and model.manifest.tables is not None and translated:
            await _explain(model, text)
    if not translated:
        raise BundleRefused(f"{model.folder} translates none of {len(_TEXTS)} plain texts")
    for job in _jobs(model.manifest, attention):
        _check_decoded((await model.scheduler.submit(job)).decoded, model.manifest)


async def _explain(model: ServedModel, text: str) -> None:
    try:
        explanation = await model.explainer.explain(text, None, TranslationOptions(alignment=True))
    except InvalidRequest:
        return
    _check_finite(explanation.attention_weights, explanation.decomposition.terms)
    model.components.read(explanation.decomposition)


def _jobs(manifest: Manifest, attention: bool) -> list[Job]:
    """Return sentences of random tokens from all over the vocabulary, to be searched for and to be scored."""
    random = np.random.default_rng(_SEED)
    limits, eos = manifest.limits, manifest.special_ids.eos

    def sentence(length: int, limit: int) -> tuple[int, ...]:
        ids = random.integers(0, manifest.sizes["vocabulary"], min(length, limit - 1))
        return *ids.tolist(), eos

    jobs = []
    for beam_size, length in _SENTENCES:
        source = sentence(length, limits.max_source_tokens)
        options = SearchOptions(min(_MOST_TOKENS, limits.max_target_tokens), beam_size, n_best=beam_size)
        jobs.append(Job(source, options, trace=attention))
        jobs.append(Job(source, options, trace=attention, target_ids=sentence(length, limits.max_target_tokens)))
    return jobs


def _check_decoded(decoded: Decoded, manifest: Manifest) -> None:
    for hypothesis in decoded.hypotheses:
        if not all(0 <= token < manifest.sizes["vocabulary"] for token in hypothesis.token_ids):
            raise BundleRefused("the decoder emits tokens that the vocabulary does not have")
        _check_finite(hypothesis.token_log_probabilities)
        if max(hypothesis.token_log_probabilities) > _ROUNDING:
            raise BundleRefused("the decoder gives log probabilities above 0")
    for trace in decoded.traces:
        if trace.attention_weights is not None:
            _check_finite(trace.attention_weights)
            if trace.attention_weights.min() < 0 or np.abs(trace.attention_weights.sum(axis=1) - 1).max() > _ROUNDING:
                raise BundleRefused("rows of attention do not sum to 1")


def _check_finite(*numbers: object) -> None:
    if not all(np.isfinite(np.asarray(array, np.float64)).all() for array in numbers):
        raise BundleRefused("the bundle answers with numbers that are not finite")


def _verdict(folder: Path, said: bytes, status: int) -> Examined:
    try:
        verdict = json.loads(said)
    except ValueError:
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise BundleRefused(
            f"{folder} cannot be examined: the process that tried {how}; a file of the bundle makes its parser crash, "
            "or takes more time or memory than its size allows"
        ) from None
    if "refused" in verdict:
        raise BundleRefused(verdict["refused"])
    return Examined(**verdict)


def _size(folder: Path) -> int:
    """Return the size of the files of ``folder``, as far as they can be seen."""
    try:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder))
    except OSError:
        return 0


def _address_space() -> int:
    """Return the bytes of address space that this process has; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    main()
