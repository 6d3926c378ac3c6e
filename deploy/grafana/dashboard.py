"""Write the Grafana dashboard, ``python deploy/grafana/dashboard.py``, as JSON that Grafana 10 and newer import.

What it shows is in ``panels.py``, and how that is asked for in ``promql.py``. The tests hold every query against the
metrics that the service exports.
"""

import json
from pathlib import Path
from typing import Any

from panels import ROWS, TABLES, Panel

FILE = Path(__file__).parent / "interlinear.json"


def drawn(panel: Panel, number: int, kind: str, place: tuple[int, int, int]) -> dict[str, Any]:
    """Return a panel as Grafana has it; ``place`` is column, line and width on its grid of 24 columns."""
    title, unit, queries = panel
    source = {"type": "prometheus", "uid": "${datasource}"}
    shape = {"instant": True, "format": "table"} if kind == "table" else {"exemplar": True}
    return {
        "id": number,
        "title": title,
        "type": kind,
        "datasource": source,
        "gridPos": {"x": place[0], "y": place[1], "w": place[2], "h": 8},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": source, "expr": expression, "legendFormat": legend, **shape}
            for index, (expression, legend) in enumerate(queries)
        ],
    }


def variable(name: str, query: str) -> dict[str, Any]:
    """Return a choice at the top of the dashboard: the values of a label."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "name": name,
        "type": "query",
        "datasource": source,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    line = 0
    rows = [*((title, "timeseries", 8, row) for title, row in ROWS.items()), ("What runs where?", "table", 12, TABLES)]
    for title, kind, width, row in rows:
        panels.append(
            {"id": len(panels) + 1, "title": title, "type": "row", "gridPos": {"x": 0, "y": line, "w": 24, "h": 1}}
        )
        line += 1
        across = 24 // width
        for index, panel in enumerate(row):
            place = (index % across * width, line + index // across * 8, width)
            panels.append(drawn(panel, len(panels) + 1, kind, place))
        line += -(-len(row) // across) * 8
    return {
        "uid": "interlinear",
        "title": "Interlinear",
        "tags": ["interlinear"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                variable("job", "label_values(interlinear_build_info, job)"),
                variable("model", 'label_values(interlinear_model_info{job=~"$job"}, model)'),
            ]
        },
        "annotations": {"list": []},
        "panels": panels,
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n", "utf-8")
