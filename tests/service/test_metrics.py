import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from service.metrics import Metrics
from service.metrics.registration import SeriesOf

BOUNDED = {"model", "version", "stage", "graph", "provider", "reason", "where", "view", "result", "term", "side"}
BOUNDED |= {"grpc_type", "grpc_service", "grpc_method", "grpc_code", "digest", "precision", "tables"}
BOUNDED |= {"onnxruntime", "python", "transport", "signal", "device"}


def every_metric() -> list[MetricWrapperBase]:
    return list(Metrics.on(CollectorRegistry()).every())


def test_names_carry_the_prefix_or_are_the_ones_stock_dashboards_know() -> None:
    names = [next(iter(metric.describe())).name for metric in every_metric()]
    assert len(names) == len(set(names)) > 40
    assert all(re.fullmatch(r"(interlinear_|grpc_server_)[a-z0-9_]+", name) for name in names)


def test_histograms_name_their_unit() -> None:
    for metric in every_metric():
        if (family := next(iter(metric.describe()))).type == "histogram":
            assert family.name.endswith(("_seconds", "_tokens", "_nats", "_ratio", "_size")), family.name


def test_no_label_can_hold_what_a_user_sends() -> None:
    for metric in every_metric():
        assert set(metric._labelnames) <= BOUNDED


def test_two_services_in_one_process_share_no_metric() -> None:
    one, other = Metrics.on(CollectorRegistry()), Metrics.on(CollectorRegistry())
    one.requests.sentences.labels("en-fr@2").inc()
    assert b'interlinear_sentences_total{model="en-fr@2"} 1.0' in generate_latest(one.registry)
    assert b"en-fr" not in generate_latest(other.registry)


def test_series_of_a_model_are_there_from_the_first_time_that_they_are_asked_for() -> None:
    metrics, series = Metrics.on(CollectorRegistry()), SeriesOf("en-fr@2")
    assert b"en-fr@2" not in generate_latest(metrics.registry)
    for _ in range(2):
        series(metrics.requests.finish_reasons, "eos").inc()
        series(metrics.requests.finish_reasons, "max_length").inc(3)
        series(metrics.requests.sentences).inc()
    for name, value in (
        ('finish_reason_total{model="en-fr@2",reason="eos"}', 2),
        ('sentences_total{model="en-fr@2"}', 2),
    ):
        assert f"interlinear_{name} {value:.1f}" in generate_latest(metrics.registry).decode()
    assert series(metrics.requests.finish_reasons, "eos") is metrics.requests.finish_reasons.labels("en-fr@2", "eos")


def test_a_registry_takes_the_metrics_once() -> None:
    registry = CollectorRegistry()
    Metrics.on(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics.on(registry)


def test_an_unloaded_model_leaves_no_series() -> None:
    metrics = Metrics.on(CollectorRegistry())
    for metric in metrics.every():
        for model in ("en-fr@1", "en-fr@2"):
            if metric._labelnames:
                metric.labels(*(model if name == "model" else "any" for name in metric._labelnames))
    metrics.forget("en-fr@1")
    exposed = generate_latest(metrics.registry).decode()
    assert "en-fr@1" not in exposed
    labeled = {metric._name for metric in metrics.every() if "model" in metric._labelnames}
    assert labeled <= set(re.findall(r"^# HELP (\w+?)(?:_total)? ", exposed, re.MULTILINE))
    assert exposed.count("en-fr@2") > len(labeled)
