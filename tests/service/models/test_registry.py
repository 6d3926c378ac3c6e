"""Which model answers which request, and when one that is taken away is closed."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Draining, EngineUnready, LanguagePairNotFound, ModelInUse, ModelNotFound
from service.metrics import Metrics
from service.models.loading import load, read
from service.models.registry import Models, natural
from service.models.served_model import ServedModel
from service.settings import read_settings
from service.translation import TranslationOptions
from tests.service.edge import metric_value

Make = Callable[..., ServedModel]


@pytest.fixture
async def loaded_model(tiny_bundle: Path, metrics: Metrics) -> AsyncIterator[ServedModel]:
    model = await load(await read(tiny_bundle), read_settings(threads=1), metrics)
    yield model
    await model.close()


@pytest.fixture
def make(loaded_model: ServedModel) -> Make:
    """Return a maker of models that share an engine: which of them answers is all that these tests look at."""

    def made(name: str = "tiny", version: str = "1", languages: str = "en-fr") -> ServedModel:
        source, _, target = languages.partition("-")
        manifest = replace(
            loaded_model.manifest, bundle_id=name, version=version, source_language=source, target_language=target
        )
        return replace(loaded_model, manifest=manifest, digest=f"{name}@{version}")

    return made


def answering(models: Models, name: str = "", source: str = "", target: str = "") -> str:
    with models.leased(name, source, target) as model:
        return model.manifest.qualified_name


def test_without_a_model_nothing_is_ready_and_calls_are_told_to_come_back(metrics: Metrics) -> None:
    models = Models(metrics)
    assert not models.ready
    with pytest.raises(EngineUnready, match="no model is loaded yet"):
        answering(models)


async def test_a_name_means_its_active_version_and_a_version_means_itself(metrics: Metrics, make: Make) -> None:
    models = Models(metrics)
    assert models.add(make(version="1")).previous_version == ""
    assert models.add(make(version="2")).previous_version == "1"
    assert models.ready
    assert [answering(models, name) for name in ("", "tiny", "tiny@1", "tiny@2")] == [
        "tiny@2",
        "tiny@2",
        "tiny@1",
        "tiny@2",
    ]
    for name in ("tiny@3", "tiny@", "tin", "@1", "tiny@1@1"):
        with pytest.raises(ModelNotFound, match=r"is loaded; loaded: 'tiny@2' \(en to fr\), 'tiny@1'"):
            answering(models, name)


async def test_the_default_of_a_pair_is_the_default_name_or_else_the_first_by_name(
    metrics: Metrics, make: Make
) -> None:
    models = Models(metrics, default_name="house")
    for name, languages in (("b-2", "en-fr"), ("b-10", "en-fr"), ("a", "en-de"), ("house", "en-fr"), ("c", "en-de")):
        models.add(make(name, languages=languages))
    assert answering(models) == "house@1"
    assert answering(models, source="en", target="fr") == answering(models, target="fr") == "house@1"
    assert answering(models, target="de") == "a@1"
    assert [model.manifest.bundle_id for model in models.listed()] == ["house", "a", "b-2", "b-10", "c"]
    assert [model.manifest.bundle_id for model in models.listed() if models.standing(model).default] == ["house", "a"]
    with pytest.raises(LanguagePairNotFound, match="no loaded model translates 'en' to 'it'"):
        answering(models, source="en", target="it")
    with pytest.raises(LanguagePairNotFound, match="'a@1' does not translate 'any language' to 'fr'"):
        answering(models, "a", target="fr")


async def test_a_request_prefers_the_model_of_the_narrowest_language(metrics: Metrics, make: Make) -> None:
    models = Models(metrics)
    for name, languages in (("a", "en-pt"), ("b", "en-pt-BR")):
        models.add(make(name, languages=languages))
    assert answering(models, target="pt-BR") == answering(models, source="en", target="pt-br") == "b@1"
    assert answering(models, target="pt") == answering(models, target="pt-PT") == answering(models) == "a@1"


async def test_activating_nothing_in_particular_goes_back_and_forth(metrics: Metrics, make: Make) -> None:
    models = Models(metrics)
    for version in ("1", "2", "3"):
        models.add(make(version=version))
    model, previous = models.activate("tiny")
    assert (model.manifest.version, previous, answering(models)) == ("2", "3", "tiny@2")
    assert models.activate("tiny").model.manifest.version == "3"
    assert models.activate("tiny", "1").previous_version == "3"
    assert models.activate("tiny", "1").previous_version == "1"
    for name, version in (("tiny", "4"), ("other", ""), ("other", "1")):
        with pytest.raises(ModelNotFound):
            models.activate(name, version)


async def test_with_one_version_there_is_none_to_go_back_to(metrics: Metrics, make: Make) -> None:
    models = Models(metrics)
    models.add(make())
    with pytest.raises(ModelNotFound, match="only one version of 'tiny'"):
        models.activate("tiny")


async def test_what_answers_by_default_cannot_be_removed_and_the_rest_can(metrics: Metrics, make: Make) -> None:
    models = Models(metrics)
    for version in ("1", "2"):
        models.add(make(version=version))
    with pytest.raises(ModelInUse, match="activate another version first"):
        models.remove("tiny", "2")
    models.remove("tiny", "1")
    with pytest.raises(ModelNotFound):
        models.remove("tiny", "1")
    with pytest.raises(ModelInUse, match="the only model there is"):
        models.remove("tiny", "2", folder_is_gone=True)
    assert answering(models) == "tiny@2"


async def test_when_the_folder_of_the_active_version_goes_the_one_before_takes_over(
    metrics: Metrics, make: Make
) -> None:
    models = Models(metrics)
    for version in ("1", "2", "3"):
        models.add(make(version=version))
    models.activate("tiny", "1")
    models.remove("tiny", "1", folder_is_gone=True)
    assert answering(models) == "tiny@3"
    models.add(make("other"))
    models.remove("other", "1", folder_is_gone=True)
    assert [model.manifest.qualified_name for model in models.listed()] == ["tiny@3", "tiny@2"]


async def test_a_model_is_closed_when_its_last_lease_ends_and_then_its_series_go(
    tiny_bundle: Path, metrics: Metrics, make: Make
) -> None:
    models = Models(metrics)
    old = await load(await read(tiny_bundle), read_settings(threads=1), metrics)
    models.add(old)
    with models.leased("", "", "") as first, models.leased("tiny@1", "", ""):
        assert first is old
        models.add(make(version="2"))
        models.remove("tiny", "1")
        assert answering(models) == "tiny@2"
        assert (await old.translator.translate("The house is big.", TranslationOptions())).hypotheses
        assert models.size_bytes == 2 * old.size_bytes
        assert metric_value(metrics, "interlinear_models_loaded") == 1
        assert metric_value(metrics, "interlinear_sentences_total", model="tiny@1") == 1
    await asyncio.sleep(0)
    with pytest.raises(Draining):
        await old.translator.translate("The house is big.", TranslationOptions())
    async with asyncio.timeout(5):
        while metric_value(metrics, "interlinear_model_info", model="tiny@1"):
            await asyncio.sleep(0.01)
    assert "tiny@1" not in str(list(metrics.registry.collect()))
    assert models.size_bytes == metric_value(metrics, "interlinear_models_bytes") == old.size_bytes


async def test_a_model_that_closes_leaves_the_series_of_the_one_that_comes(
    tiny_bundle: Path, metrics: Metrics, make: Make
) -> None:
    models, settings = Models(metrics), read_settings(threads=1)
    models.add(await load(await read(tiny_bundle), settings, metrics))
    models.add(make("other"))
    with models.expected("tiny@1"):
        models.remove("tiny", "1", folder_is_gone=True)
        new = await load(await read(tiny_bundle), settings, metrics)
        async with asyncio.timeout(5):
            while models.size_bytes > new.size_bytes:  # until the old one is closed
                await asyncio.sleep(0.01)
        models.add(new)
    assert metric_value(metrics, "interlinear_model_info", model="tiny@1") == 1
    with models.expected("never@1"):
        metrics.batches.queue_capacity.labels("never@1").set(1)
    assert "never@1" not in str(list(metrics.registry.collect()))
    await models.close()


async def test_closing_everything_does_not_wait_for_leases(tiny_bundle: Path, metrics: Metrics) -> None:
    models = Models(metrics)
    models.add(await load(await read(tiny_bundle), read_settings(threads=1), metrics))
    with models.leased("", "", "") as model:
        async with asyncio.timeout(5):
            await models.close()
        with pytest.raises(Draining):
            await model.translator.translate("The house is big.", TranslationOptions())
    assert not models.ready


@given(st.lists(st.text("019.ab-", max_size=6), max_size=4))
def test_natural_order_is_an_order_and_follows_the_numbers(texts: list[str]) -> None:
    assert len({natural(text) for text in texts}) == len(set(texts))
    assert sorted(texts, key=natural) == sorted(reversed(texts), key=natural)
    for low, high in itertools.combinations(range(0, 120, 7), 2):
        assert natural(f"v{low}") < natural(f"v{high}") and natural(f"1.{low}.9") < natural(f"1.{high}")
