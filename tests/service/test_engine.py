import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest

from bundle.search import EncodedBatch
from bundle.sessions import own_states
from bundle.step import GivenAttention
from service.decoder_state import Wanted
from service.engine import Engine
from service.errors import BundleRefused, DeviceUnavailable
from service.metrics import Metrics
from service.runtime import refuse_two_runtimes

SOURCES = [[4, 5, 6, 3], [9, 3], list(range(4, 24)) + [3]]


def repeated(encoded: EncodedBatch, beam_size: int) -> dict[str, np.ndarray]:
    return own_states(
        {name: np.repeat(tensor[:, None], beam_size, axis=1) for name, tensor in encoded.initial_state.items()}
    )


def test_sources_are_padded_to_a_multiple_of_sixteen(engine: Engine) -> None:
    encoded = engine.encode(SOURCES)
    assert encoded.source_lengths.tolist() == [4, 2, 21]
    assert {name: array.shape[1] for name, array in encoded.encoder_side.items()} == {
        "encoder_states": 32,
        "attention_keys": 32,
    }


def test_a_sentence_is_encoded_to_the_same_bits_alone_and_among_others(engine: Engine) -> None:
    together = engine.encode(SOURCES)
    for row, source in enumerate(SOURCES):
        alone = engine.encode([source])
        for name, array in alone.encoder_side.items():
            np.testing.assert_array_equal(array[0, : len(source)], together.encoder_side[name][row, : len(source)])
        for name, tensor in alone.initial_state.items():
            np.testing.assert_array_equal(tensor[0], together.initial_state[name][row])


def test_a_step_returns_what_was_asked_for_and_no_more(engine: Engine) -> None:
    encoded = engine.encode(SOURCES)
    previous = np.full((3, 4), engine.manifest.special_ids.bos)
    plain = engine.step(encoded, previous, repeated(encoded, 4), Wanted(5))
    assert plain.candidate_token_ids.shape == plain.candidate_log_probabilities.shape == (3, 4, 5)
    assert plain.attention_scores is None and plain.log_probabilities is None
    everything = engine.step(encoded, previous, repeated(encoded, 4), Wanted(5, True, True))
    assert everything.attention_scores is not None and everything.attention_weights is not None
    assert everything.log_probabilities is not None
    assert everything.log_probabilities.shape == (3, 4, engine.manifest.sizes["vocabulary"])
    np.testing.assert_array_equal(plain.candidate_log_probabilities, everything.candidate_log_probabilities)
    best = np.take_along_axis(everything.log_probabilities, everything.candidate_token_ids, axis=2)
    np.testing.assert_array_equal(best, everything.candidate_log_probabilities)


def test_attention_is_a_distribution_over_the_source_and_its_scores_are_products_with_the_keys(engine: Engine) -> None:
    encoded = engine.encode(SOURCES)
    previous = np.full((3, 1), engine.manifest.special_ids.bos)
    output = engine.step(encoded, previous, repeated(encoded, 1), Wanted(2, attention=True))
    assert output.attention_scores is not None and output.attention_weights is not None
    assert output.attention_query is not None
    for row, source in enumerate(SOURCES):
        weights = output.attention_weights[row, 0]
        assert weights[: len(source)].sum() == pytest.approx(1.0, abs=1e-5)
        assert not weights[len(source) :].any()
        products = encoded.encoder_side["attention_keys"][row, : len(source)] @ output.attention_query[row, 0]
        np.testing.assert_allclose(output.attention_scores[row, 0, : len(source)], products, rtol=1e-4, atol=1e-5)


def test_attending_alone_gives_the_bits_of_a_step(engine: Engine) -> None:
    encoded = engine.encode(SOURCES)
    previous, state = np.full((3, 4), engine.manifest.special_ids.bos), repeated(encoded, 4)
    attended = engine.attend(encoded, previous, state)
    output = engine.step(encoded, previous, state, Wanted(2, attention=True))
    np.testing.assert_array_equal(attended.scores, output.attention_scores)
    np.testing.assert_array_equal(attended.weights, output.attention_weights)
    np.testing.assert_array_equal(attended.query, output.attention_query)


def test_a_step_told_its_own_attention_is_the_plain_step_to_the_bit(engine: Engine) -> None:
    encoded = engine.encode(SOURCES)
    previous, state = np.full((3, 4), engine.manifest.special_ids.bos), repeated(encoded, 4)
    plain = engine.step(encoded, previous, state, Wanted(5, True, True))
    assert plain.attention_weights is not None
    for replaced in (np.ones((3, 4), bool), np.zeros((3, 4), bool), np.arange(12).reshape(3, 4) % 2 == 0):
        told = engine.step(
            encoded, previous, state, Wanted(5, True, True), GivenAttention(replaced, plain.attention_weights)
        )
        np.testing.assert_array_equal(told.log_probabilities, plain.log_probabilities)
        for name, tensor in plain.state.items():
            np.testing.assert_array_equal(told.state[name], tensor)


def test_given_attention_changes_the_hypotheses_it_is_for_and_no_other(engine: Engine) -> None:
    assert engine.takes_given_attention
    encoded = engine.encode(SOURCES)
    previous, state = np.full((3, 2), engine.manifest.special_ids.bos), repeated(encoded, 2)
    plain = engine.step(encoded, previous, state, Wanted(2, True, True))
    assert plain.attention_weights is not None and plain.log_probabilities is not None
    weights = np.zeros_like(plain.attention_weights)
    weights[:, :, 0] = 1.0
    replaced = np.array([[True, False]] * 3)
    output = engine.step(encoded, previous, state, Wanted(2, True, True), GivenAttention(replaced, weights))
    assert output.log_probabilities is not None and output.attention_weights is not None
    np.testing.assert_array_equal(output.attention_weights[:, 0], weights[:, 0])
    assert (output.log_probabilities[:, 0] != plain.log_probabilities[:, 0]).any(axis=1).all()
    np.testing.assert_array_equal(output.log_probabilities[:, 1], plain.log_probabilities[:, 1])


def test_time_inside_onnx_runtime_is_metered_by_graph(engine: Engine, metrics: Metrics) -> None:
    before = engine.runtime_seconds
    engine.encode(SOURCES)
    assert engine.runtime_seconds > before
    exposed = generate_latest(metrics.registry).decode()
    assert 'interlinear_session_run_duration_seconds_count{graph="encoder",model="tiny@1"} 2.0' in exposed
    labels = 'device="cpu",model="tiny@1",provider="CPUExecutionProvider"'
    assert f"interlinear_execution_provider_active{{{labels}}} 1.0" in exposed


def test_a_damaged_bundle_is_refused_with_every_fault(tiny_bundle: Path, tmp_path: Path, metrics: Metrics) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "damaged"))
    (folder / "encoder.onnx").write_bytes((folder / "encoder.onnx").read_bytes()[:-1])
    (folder / "README.md").unlink()
    with pytest.raises(BundleRefused, match="encoder.onnx") as caught:
        Engine(folder, "cpu", 1, metrics)
    assert "README.md" in str(caught.value)


def test_graphs_that_differ_from_the_manifest_are_refused(tiny_bundle: Path, tmp_path: Path, metrics: Metrics) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "other"))
    manifest = json.loads((folder / "manifest.json").read_text())
    outputs = manifest["graphs"]["decoder_step"]["outputs"]
    manifest["graphs"]["decoder_step"]["outputs"] = [tensor for tensor in outputs if tensor["name"] != "context"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleRefused, match="decoder_step.onnx has outputs.*context"):
        Engine(folder, "cpu", 1, metrics)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, metrics: Metrics) -> None:
    with pytest.raises(BundleRefused, match="manifest.json is missing"):
        Engine(tmp_path, "cpu", 1, metrics)


def test_cuda_asked_for_and_not_there_is_refused_with_what_to_do(tiny_bundle: Path, metrics: Metrics) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceUnavailable, match=r"cuda:0 was asked for.*interlinear\[gpu\].*INTERLINEAR_DEVICE=cpu"):
        Engine(tiny_bundle, "cuda:0", 1, metrics)


def test_both_runtimes_installed_are_refused() -> None:
    refuse_two_runtimes(["onnxruntime"])
    with pytest.raises(DeviceUnavailable, match="onnxruntime and onnxruntime-gpu are both installed"):
        refuse_two_runtimes(["onnxruntime-gpu", "onnxruntime"])
    with pytest.raises(DeviceUnavailable, match="not installed"):
        refuse_two_runtimes([])


def test_a_second_runtime_on_the_path_is_found(tiny_bundle: Path, tmp_path: Path) -> None:
    info = tmp_path / "onnxruntime_gpu-1.31.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n")
    program = (
        "from pathlib import Path; from prometheus_client import CollectorRegistry;"
        "from service.engine import Engine; from service.metrics import Metrics;"
        f"Engine(Path({str(tiny_bundle)!r}), 'cpu', 1, Metrics.on(CollectorRegistry()))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DeviceUnavailable: onnxruntime and onnxruntime-gpu are both installed" in done.stderr


def test_an_engine_is_made_anew_without_its_folder_and_answers_with_the_same_bits(
    tiny_bundle: Path, tmp_path: Path, metrics: Metrics
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    engine = Engine(folder, "cpu", 1, metrics)
    shutil.rmtree(folder)
    twin = engine.reloaded().reloaded()
    assert twin.manifest == engine.manifest
    one, other = engine.encode(SOURCES), twin.encode(SOURCES)
    for name, array in one.encoder_side.items():
        np.testing.assert_array_equal(array, other.encoder_side[name])


def test_graphs_that_were_written_over_in_memory_are_not_loaded_anew(engine: Engine) -> None:
    bundle, *others = engine._made_of
    content = bundle.files["encoder.onnx"]
    damaged = replace(bundle, files={**bundle.files, "encoder.onnx": bytes([content[0] ^ 1]) + content[1:]})
    engine._made_of = (damaged, *others)  # type: ignore[assignment]
    with pytest.raises(BundleRefused, match="encoder.onnx of .* was damaged in this process's memory"):
        engine.reloaded()


def test_a_terminated_engine_makes_no_more_calls_and_the_one_loaded_in_its_place_does(engine: Engine) -> None:
    engine.terminate()
    with pytest.raises(Exception, match="terminate flag"):
        engine.encode(SOURCES)
    assert engine.reloaded().encode(SOURCES).source_lengths.tolist() == [4, 2, 21]
