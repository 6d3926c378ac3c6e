from pathlib import Path

import pytest

from training.config import parse_config, read_config
from training.errors import InvalidConfig
from training.models.registry import build_model

RECIPES = sorted(Path("training/recipes").glob("*.toml"))
WHOLE = """
[data]
source_language = "en"
target_language = "fr"
train = [{ source = "a.tsv" }]
dev = [{ source = "b.tsv" }]
[model]
architecture = "aed"
[schedule]
steps = 10
"""


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_can_be_read_and_describes_a_model(recipe: Path) -> None:
    config = read_config(recipe)
    assert build_model(config.model, vocabulary=100).sizes["vocabulary"] == 100


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (WHOLE + "stepps = 3", "schedule.stepps"),
        (WHOLE.replace("steps = 10", ""), "schedule.steps"),
        (WHOLE.replace("steps = 10", "steps = 0"), "schedule.steps"),
        (WHOLE.replace('train = [{ source = "a.tsv" }]', "train = []"), "data.train"),
        (WHOLE + "label_smoothing = 1.5", "schedule.label_smoothing"),
        (WHOLE.replace('"en"', '"English!"'), "data.source_language"),
        ('precision = "16-mixed"\n' + WHOLE, "precision"),
        (WHOLE + "[", "not TOML"),
    ],
)
def test_a_bad_configuration_is_refused_by_the_name_of_its_key(given: str, named: str) -> None:
    with pytest.raises(InvalidConfig, match=named):
        parse_config(given)


def test_all_faults_of_a_configuration_come_in_one_message() -> None:
    with pytest.raises(InvalidConfig, match=r"(?s)schedule\.steps.*surprise"):
        parse_config(WHOLE.replace("steps = 10", "steps = -1").replace("[data]", "surprise = 1\n[data]"))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InvalidConfig, match="nowhere.toml"):
        read_config(Path("nowhere.toml"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"architecture": "transformer"}, "allowed: aed"),
        ({}, "allowed: aed"),
        ({"architecture": "aed", "key": 256}, "key is 256"),
        ({"architecture": "aed", "hidden": 33}, "must be even"),
        ({"architecture": "aed", "wings": 2}, "wings"),
        ({"architecture": "aed", "hidden": "wide"}, "hidden"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_with_the_reason(model: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        build_model(model, vocabulary=100)
