from pathlib import Path

import pydantic
import pytest

from service.errors import InvalidSettings
from service.settings import PREFIX, Settings, misspelled_variables, read_settings, split_address


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


def test_the_pinned_defaults_hold() -> None:
    settings = read_settings()
    assert settings.grpc_address == "127.0.0.1:50051"
    assert settings.http_address == "127.0.0.1:8080"
    assert settings.device == "cpu"
    assert settings.bundle.parts[-3:] == ("service", "bundles", "en-fr")


def test_the_environment_wins_over_defaults_and_the_caller_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLINEAR_BUNDLE", "/bundles/a")
    monkeypatch.setenv("INTERLINEAR_DEVICE", "cuda:1")
    settings = read_settings(bundle=Path("/bundles/b"))
    assert (settings.bundle, settings.device) == (Path("/bundles/b"), "cuda:1")


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLINEAR_DEVICE", "")
    assert read_settings().device == "cpu"


def test_all_faults_come_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLINEAR_DEVICE", "gpu")
    monkeypatch.setenv("INTERLINEAR_QUEUE_CAPACITY", "0")
    monkeypatch.setenv("INTERLINEAR_HTTP_ADDRESS", "localhost")
    with pytest.raises(InvalidSettings) as caught:
        read_settings()
    message = str(caught.value)
    for expected in ("INTERLINEAR_DEVICE=gpu", "cuda:0", "INTERLINEAR_QUEUE_CAPACITY=0", "INTERLINEAR_HTTP_ADDRESS"):
        assert expected in message


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        read_settings().device = "cuda:0"


@pytest.mark.parametrize("address", ["", "localhost", ":80", "host:65536", "host:-1", "a b:80", "http://host:80"])
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        split_address(address)


def test_a_typing_error_in_a_variable_is_noticed_but_what_kubernetes_sets_is_not() -> None:
    environ = {"INTERLINEAR_DEVCE": "cpu", "INTERLINEAR_PORT": "tcp://10.0.0.1:50051", "INTERLINEAR_SERVICE_HOST": "a"}
    assert misspelled_variables(environ) == {"INTERLINEAR_DEVCE": "INTERLINEAR_DEVICE"}


def test_every_setting_is_explained() -> None:
    explained = Settings.__doc__ or ""
    assert all(f"        {name}: " in explained for name in Settings.model_fields)
