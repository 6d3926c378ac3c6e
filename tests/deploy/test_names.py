"""Every name that rules and dashboard use is exported by a running service; what it exports is documented and used."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import errors
from tests.deploy.queries import RECORDING, Selected, dashboard_queries, rule_queries, rules, selected
from tests.service.edge import service_process

ROOT = Path(__file__).parent.parent.parent
LABELS_OF_PROMETHEUS = {"job", "instance", "le"}
MADE_BY_PROMETHEUS = {"up"}
OF_THE_CLIENT = ("process_", "python_")  # prometheus-client's own; docs/api.md says so
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


@dataclass(frozen=True)
class Exported:
    """What a service exports.

    Attributes:
        metrics: Names as documented.
        owners: The metric of every series, by the name of the series.
    """

    metrics: frozenset[str]
    owners: dict[str, str]


@pytest.fixture(scope="module")
def exported(tiny_bundle: Path) -> Exported:
    """What a service exports that has just explained one text."""
    with service_process(tiny_bundle) as service:
        explained = httpx.post(f"http://{service.http_address}/v1/explain", json={"text": "abc"}, timeout=30)
        assert explained.status_code == 200, explained.text
        page = httpx.get(f"http://{service.admin_http_address}/metrics").text
    owners: dict[str, str] = {}
    for family in text_string_to_metric_families(page):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        # Names as they come; where nothing was counted yet, as they will. Those below 0 have no sum.
        samples = {sample.name for sample in family.samples} or {name + suffix for suffix in SUFFIXES[family.type]}
        owners |= dict.fromkeys(samples, name)
    return Exported(frozenset(owners.values()), owners)


def asked() -> Iterator[tuple[str, Selected]]:
    for name, query in (rule_queries() | dashboard_queries()).items():
        for series in selected(query):
            yield name, series


def documented() -> dict[str, set[str]]:
    """Return the labels of every metric in docs/api.md, by its name."""
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (?:counter|gauge|histogram) \| (.*?) \|", page, flags=re.MULTILINE)
    return {name: set(cell.split(", ")) for name, cell in rows}


def test_every_name_that_is_used_is_exported(exported: Exported) -> None:
    known = {*exported.owners, *MADE_BY_PROMETHEUS, *(rule["record"] for rule in rules(RECORDING))}
    assert {(name, series.metric) for name, series in asked() if series.metric not in known} == set()


def test_every_metric_that_is_exported_is_used_by_a_panel_or_an_alert(exported: Exported) -> None:
    assert exported.metrics - {exported.owners.get(series.metric) for _, series in asked()} == set()


def test_every_metric_that_is_exported_is_documented(exported: Exported) -> None:
    ours = {name for name in exported.metrics if not name.startswith(OF_THE_CLIENT)}
    assert ours == documented().keys()


def test_every_label_that_is_asked_for_is_one_of_its_metric(exported: Exported) -> None:
    labels = documented()
    for name, series in asked():
        owner = exported.owners.get(series.metric, "")
        if owner in labels:
            assert series.labels <= labels[owner] | LABELS_OF_PROMETHEUS, f"{name}: {series.metric}"


def test_every_code_and_reason_that_is_asked_for_exists() -> None:
    codes = {code.name for code in grpc.StatusCode}
    reasons = {kind.reason for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "reason")}
    found = {pair for _, series in asked() for pair in series.values}
    assert {value for label, value in found if label == "grpc_code"} <= codes
    of_errors = {value for label, value in found if label == "reason" and value.isupper()}
    assert of_errors and of_errors <= reasons
