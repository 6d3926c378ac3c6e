"""What the rules and the dashboard ask Prometheus for, read from the files that are shipped."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
RECORDING = DEPLOY / "prometheus" / "recording.yml"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "interlinear.json"

_GRAFANA_VARIABLES = {"$__rate_interval": "5m", "$job": "job", "$model": "model"}


@dataclass(frozen=True)
class Selected:
    """A series that is asked for.

    Attributes:
        metric: Its name.
        labels: Names of the labels that it is chosen by.
        values: Of those that are asked for by equality or in an alternative, with the label.
    """

    metric: str
    labels: frozenset[str]
    values: frozenset[tuple[str, str]]


def rules(file: Path) -> list[dict[str, Any]]:
    """Return the rules of a file."""
    return [rule for group in yaml.safe_load(file.read_text("utf-8"))["groups"] for rule in group["rules"]]


def rule_queries() -> dict[str, str]:
    """Return what recording and alerting rules ask, by their names."""
    found = [*rules(RECORDING), *rules(ALERTS)]
    return {rule.get("alert") or rule["record"]: rule["expr"] for rule in found}


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard, without the lines between them."""
    return [panel for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"] if panel["type"] != "row"]


def dashboard_queries() -> dict[str, str]:
    """Return what the panels ask, by their titles."""
    asked = {}
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in _GRAFANA_VARIABLES.items():
                expression = expression.replace(name, value)
            asked[f"{panel['title']} {target['refId']}"] = expression
    return asked


def selected(expression: str) -> list[Selected]:
    """Return the series that PromQL asks for; raise ``ValueError`` where it is none."""
    return [
        Selected(
            str(selector.name),
            frozenset(matcher.name for matcher in selector.matchers.matchers),
            frozenset(_values(selector.matchers.matchers)),
        )
        for selector in _selectors(promql_parser.parse(expression))
    ]


def _values(matchers: list[Any]) -> Iterator[tuple[str, str]]:
    for matcher in matchers:
        if matcher.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.NotEqual):
            yield matcher.name, matcher.value
        elif re.fullmatch(r"[\w|]+", matcher.value):
            yield from ((matcher.name, value) for value in matcher.value.split("|"))


def _selectors(expression: Any) -> Iterator[Any]:
    """Yield the selectors in an expression, at whatever depth."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    elif isinstance(expression, promql_parser.MatrixSelector):
        yield expression.vector_selector
    elif isinstance(expression, promql_parser.BinaryExpr):
        yield from _selectors(expression.lhs)
        yield from _selectors(expression.rhs)
    elif isinstance(expression, promql_parser.Call):
        for argument in expression.args:
            yield from _selectors(argument)
    elif hasattr(expression, "expr"):
        yield from _selectors(expression.expr)
