"""Faults of what the service reads: bundles that are damaged or half written, models and certificates that change."""

import asyncio
import contextlib
import functools
import random
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import trustme
from cryptography import x509

from bundle import manifest as manifests
from service.pb import interlinear_pb2 as pb
from service.pb import interlinear_pb2_grpc as pb_grpc
from tests.reliability.load import Target, of_error
from tests.reliability.process import Service
from tests.reliability.stage import Found, Scene, Stage, staged, until

_DAMAGES = 200
_SWAPS = 50
_ROTATIONS = 3
_WATCH_SECONDS = 0.5
_LISTED = ("ListModels", "GetModel")  # their answers change with what is loaded
_REFUSED = "FAILED_PRECONDITION MODEL_REFUSED"


async def bundle_damaged(scene: Scene) -> Found:
    """Bundles that are cut or have a bit flipped are loaded while others answer: each is refused."""
    times = scene.times(_DAMAGES)
    async with _with_models(scene, MODELS_POLL_SECONDS="0") as stage:
        good = _copy(scene.bundle, scene.folder / "good", version="damaged")
        taken, chance = [], random.Random(scene.seed)
        async with stage.under_load():
            for _ in range(times):
                where = _copy(good, _models(scene) / "broken")
                place = _damage(where, chance)
                answer = await _load(stage, "broken")
                if answer != _REFUSED:
                    taken.append(f"{place}: {answer}")
                shutil.rmtree(where)
    remark = "half cut, half with a bit flipped; all refused with MODEL_REFUSED" if not taken else ""
    return Found("bundle damaged", times, stage, stage.recovery_seconds(), remark, tuple(taken[:3]))


async def disk_full(scene: Scene) -> Found:
    """The disk is full before a bundle is whole: it is not loaded until it is."""
    size = sum(file.stat().st_size for file in scene.bundle.iterdir())
    with _small_disk(_models(scene), size // 2) as is_small:
        async with _with_models(scene, MODELS_POLL_SECONDS=str(_WATCH_SECONDS)) as stage:
            newer = _copy(scene.bundle, scene.folder / "newer", version="3")
            digests = (manifests.digest(manifests.read(folder)) for folder in (scene.bundle, newer))
            stage.traffic.judge.equate(*digests)
            async with stage.under_load():
                with contextlib.suppress(OSError, shutil.Error):
                    shutil.copytree(newer, _models(scene) / "newer")
                await asyncio.sleep(3 * _WATCH_SECONDS)
                early = await _load(stage, "newer")
                subprocess.run(["mount", "-o", f"remount,size={size * 4}", _models(scene)], check=is_small)
                shutil.copytree(newer, _models(scene) / "newer", dirs_exist_ok=True)
                loaded = await until(lambda: _is_loaded(stage.service, "3"))
    trouble = {
        "not done: a small disk needs the right to mount one": is_small,
        "half a bundle was loaded": early != "OK",
    }
    missed = tuple(what for what, is_well in trouble.items() if not is_well)
    remark = "recovery: from the moment the bundle was whole until it answered"
    return Found("disk full while a bundle is written", 1, stage, loaded, remark, missed)


async def hot_swaps(scene: Scene) -> Found:
    """Two versions take turns in answering; every answer is, to the bit, one of the version that it names."""
    names, times = ("old", "new"), scene.times(_SWAPS)
    for version, name in enumerate(names, start=7):
        _copy(scene.bundle, _models(scene) / name, version=str(version), limits=_shorter(scene.bundle, version))
    seconds = []
    async with _with_models(scene, MODELS_POLL_SECONDS="0") as stage:
        await _load(stage, "old")
        await stage.traffic.learn(stage.caller)
        async with stage.under_load():
            for turn in range(times):
                begun = time.perf_counter()
                answer = await _load(stage, names[turn % 2])
                assert answer == "OK", answer
                seconds.append(time.perf_counter() - begun)
    digests = len({noted.outcome.digest for noted in stage.noted if noted.outcome.digest})
    remark = f"recovery: longest swap; {digests} models answered"
    missed = () if digests == 2 else ("both versions should have answered",)
    return Found("hot swap", times, stage, max(seconds), remark, missed)


async def certificate_rotated(scene: Scene) -> Found:
    """The certificate is replaced while callers ask, once by one that is none."""
    authority = trustme.CA()
    files = scene.folder / "certificate.pem", scene.folder / "key.pem"
    _write_certificate(authority, *files)
    settings = {"TLS_CERTIFICATE": str(files[0]), "TLS_KEY": str(files[1]), "BUNDLE": str(scene.bundle)}
    service = Service({**settings, "ADMIN_HTTP_ADDRESS": "off"}, scene.folder / "log")
    target = Target(service.address, service.http_address, authority.cert_pem.bytes())
    seconds = []
    async with staged(scene, service, target=target) as stage:
        async with stage.under_load():
            for _ in range(_ROTATIONS):
                serial = _write_certificate(authority, *files)
                seconds.append(await until(functools.partial(_presents, target, serial)))
            files[0].write_text("this is no certificate")
            await asyncio.sleep(6.0)  # longer than it takes to be looked at
    remark = "recovery: until new connections had the new certificate, over gRPC and HTTP"
    return Found("certificate rotated", _ROTATIONS + 1, stage, max(seconds), remark)


@contextlib.asynccontextmanager
async def _with_models(scene: Scene, **settings: str) -> AsyncIterator[Stage]:
    """Stage a service that watches a folder of models."""
    _models(scene).mkdir(exist_ok=True)
    given = {"BUNDLE": str(scene.bundle), "MODELS": str(_models(scene)), **settings}
    async with staged(scene, Service(given, scene.folder / "log"), methods=_LISTED) as stage:
        yield stage


def _models(scene: Scene) -> Path:
    return scene.folder / "models"


def _copy(bundle: Path, to: Path, **changes: Any) -> Path:
    """Copy a bundle, with changes to its manifest."""
    shutil.copytree(bundle, to)
    if changes:
        manifests.write(to, replace(manifests.read(to), **changes))
    return to


def _shorter(bundle: Path, tokens: int) -> manifests.Limits:
    """Return limits for a copy of ``bundle`` that show in every answer whose they are."""
    limits = manifests.read(bundle).limits
    return replace(limits, max_target_tokens=limits.max_target_tokens - tokens)


def _damage(folder: Path, chance: random.Random) -> str:
    """Cut a file of a bundle, or flip a bit of one, but for the manifest, where nothing tells of it; return where."""
    cut = chance.random() < 0.5
    file = chance.choice(sorted(each for each in folder.iterdir() if cut or each.name != manifests.MANIFEST_FILE))
    content = bytearray(file.read_bytes())
    at = chance.randrange(len(content))
    if cut:
        del content[at:]
    else:
        content[at] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return f"{file.name} {'cut' if cut else 'flipped'} at {at}"


async def _load(stage: Stage, folder: str) -> str:
    """Load a bundle of the folder of models; return OK, or code and reason."""
    async with grpc.aio.insecure_channel(stage.service.admin_address) as channel:
        try:
            await pb_grpc.ModelAdminServiceStub(channel).LoadModel(pb.LoadModelRequest(folder=folder))
        except grpc.aio.AioRpcError as error:
            outcome = of_error(error, 0.0)
            return f"{outcome.code} {outcome.reason}"
    return "OK"


def _is_loaded(service: Service, version: str) -> bool:
    with grpc.insecure_channel(service.address) as channel:
        models = pb_grpc.ModelServiceStub(channel).ListModels(pb.ListModelsRequest(), timeout=10).models
    return any(model.version == version and model.is_active for model in models)


@contextlib.contextmanager
def _small_disk(folder: Path, size_bytes: int) -> Iterator[bool]:
    """Put a small file system at ``folder`` while the context lasts; yield whether that was allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    is_mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)


def _write_certificate(authority: trustme.CA, certificate: Path, key: Path) -> int:
    """Issue another certificate into these files, one after the other; return its serial number."""
    issued = authority.issue_cert("127.0.0.1", "localhost")
    for file, content in ((certificate, issued.cert_chain_pems[0]), (key, issued.private_key_pem)):
        written = file.with_suffix(".new")
        written.write_bytes(content.bytes())
        written.chmod(0o600)
        written.rename(file)
    return x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes()).serial_number


def _presents(target: Target, serial_number: int) -> bool:
    """Return whether new connections get that certificate, over gRPC and HTTP."""
    return all(_serial(address, target) == serial_number for address in (target.address, target.http_address))


def _serial(address: str, target: Target) -> int:
    """Return the serial number of the certificate that a new connection to ``address`` gets."""
    context = target.tls
    assert context is not None
    context.set_alpn_protocols(["h2", "http/1.1"])
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        with context.wrap_socket(connection, server_hostname=host) as secured:
            found = secured.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number
