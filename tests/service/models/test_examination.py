"""A bundle is tried out in a process of its own: what it does to that process, it does not do to the service."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bundle import manifest as manifests
from service.errors import BundleRefused
from service.models.examination import Examined, examine
from service.models.loading import read
from service.settings import EMBEDDED_BUNDLE
from tests.reliability import hostile
from tests.service.models.bundles import renamed, resealed


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


async def next_child() -> int:
    """Return the process that is started next, once it is."""
    before = set(children())
    async with asyncio.timeout(30):
        while not (found := set(children()) - before):
            await asyncio.sleep(0.01)
    return found.pop()


def bomb(bundle: Path, folder: Path, kind: str) -> Path:
    """Copy ``bundle`` with a graph that takes all time (``Loop``) or all memory (``Range``), and return it."""
    renamed(bundle, folder)
    file = folder / "encoder.onnx"
    model = onnx.load(file)
    made = onnx.parser.parse_graph(
        {
            "Loop": """
                g (float[batch, source, hidden] before) => (float[batch, source, hidden] encoder_states) {
                    turns = Constant<value_int = 4611686018427387904>()
                    yes = Constant<value = bool {1}>()
                    encoder_states = Loop(turns, yes, before)<body = body (int64 turn, bool go_on, float[b, s, h] x)
                        => (bool again, float[b, s, h] same) { again = Identity(go_on) same = Tanh(x) }>
                }""",
            "Range": """
                g (float[batch, source, hidden] before) => (float[batch, source, hidden] encoder_states) {
                    first = Constant<value_int = 0>()
                    last = Constant<value_int = 1099511627776>()
                    step = Constant<value_int = 1>()
                    numbers = Range(first, last, step)
                    least = ReduceMin<keepdims = 0>(numbers)
                    nothing = Cast<to = 1>(least)
                    encoder_states = Add(before, nothing)
                }""",
        }[kind]
    )
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = "before" if name == "encoder_states" else name
    keys = next(node for node in model.graph.node if "attention_keys" in node.output)
    place = list(model.graph.node).index(keys)
    for offset, node in enumerate(made.node):
        model.graph.node.insert(place + offset, node)
    file.write_bytes(model.SerializeToString())
    return resealed(folder)


@pytest.mark.parametrize("embedded", [True, False])
async def test_a_good_bundle_passes_and_is_known_by_its_digest(tiny_bundle: Path, embedded: bool) -> None:
    folder = EMBEDDED_BUNDLE if embedded else tiny_bundle
    manifest = manifests.read(folder)
    size = sum(file.size_bytes for file in manifest.files.values())
    assert await examine(folder) == Examined(manifest.bundle_id, manifest.version, manifests.digest(manifest), size)


async def test_a_bundle_without_tables_and_one_without_attention_pass(
    tiny_bundle_without_tables: Path, tmp_path: Path
) -> None:
    assert (await examine(tiny_bundle_without_tables)).name == "tiny"
    silent = renamed(tiny_bundle_without_tables, tmp_path / "silent", score_kind="none")
    assert (await examine(silent)).name == "tiny"


async def test_all_faults_come_back_from_the_process(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = renamed(tiny_bundle, tmp_path / "bad")
    (folder / "extra").touch()
    (folder / "README.md").unlink()
    with pytest.raises(BundleRefused, match=r"2 fault\(s\):\n  - extra is in .*\n  - README.md is missing"):
        await examine(folder)


async def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = renamed(tiny_bundle, tmp_path / "bad")
    for name in ("README.md", "encoder.onnx"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    with pytest.raises(BundleRefused, match="encoder.onnx is no plain file\n  - README.md is no plain file|README"):
        await examine(folder)


async def test_a_graph_that_wants_all_memory_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match="cannot be (run|loaded)"):
        await examine(bomb(tiny_bundle, tmp_path / "bad", "Range"))


async def test_a_process_that_crashes_or_is_killed_refuses_its_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    task = asyncio.create_task(examine(bomb(tiny_bundle, tmp_path / "bad", "Loop")))
    process = await next_child()
    await asyncio.sleep(1.0)
    os.kill(process, signal.SIGSEGV)
    with pytest.raises(BundleRefused, match="the process that tried was ended by SIGSEGV; a file of the bundle makes"):
        await task


async def test_who_stops_waiting_stops_the_process(tiny_bundle: Path, tmp_path: Path) -> None:
    before = set(children())
    started = time.perf_counter()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.0):
            await examine(bomb(tiny_bundle, tmp_path / "bad", "Loop"))
    assert time.perf_counter() - started < 10
    assert set(children()) <= before


async def test_answers_that_are_no_numbers_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = renamed(tiny_bundle, tmp_path / "bad")
    model = onnx.load(folder / "decoder_step.onnx")
    for index, weights in enumerate(model.graph.initializer):
        if weights.name == "readout":
            spoiled = np.full(tuple(weights.dims), np.nan, np.float32)
            model.graph.initializer[index].CopyFrom(numpy_helper.from_array(spoiled, "readout"))
    (folder / "decoder_step.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleRefused):
        await examine(resealed(folder))


async def test_what_is_loaded_is_what_was_examined(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = renamed(tiny_bundle, tmp_path / "bundle")
    examined = await examine(folder)
    assert (await read(folder, examined.digest)).manifest.version == "1"
    renamed(tiny_bundle, folder, version="2")
    with pytest.raises(BundleRefused, match="was changed while it was being loaded"):
        await read(folder, examined.digest)


async def test_the_process_knows_no_secret_of_the_service(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERLINEAR_KEY", "ilk_secret")
    task = asyncio.create_task(examine(bomb(tiny_bundle, tmp_path / "bad", "Loop")))
    process = await next_child()
    await asyncio.sleep(0.5)
    environment = Path(f"/proc/{process}/environ").read_bytes()
    task.cancel()
    await asyncio.wait([task])
    assert environment and b"ilk_secret" not in environment


def test_damage_without_new_digests_is_always_found(tiny_bundle: Path, tmp_path: Path) -> None:
    for seed in range(30):
        folder = renamed(tiny_bundle, tmp_path / "bad")
        hostile.unsealed(folder, random.Random(seed))
        with pytest.raises(BundleRefused, match="was changed: its SHA-256|the manifest says"):
            asyncio.run(read(folder))
