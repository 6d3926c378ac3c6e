import json
import runpy

import pytest

from tests.deploy.queries import DASHBOARD, DEPLOY, panels


def test_the_dashboard_is_what_its_script_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DEPLOY / "grafana")  # as when the script is run
    script = runpy.run_path(str(DEPLOY / "grafana" / "dashboard.py"))
    assert json.loads(DASHBOARD.read_text("utf-8")) == script["dashboard"](), "run python deploy/grafana/dashboard.py"


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        place = panel["gridPos"]
        columns, lines = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        covered = {(column, line) for column in columns for line in lines}
        assert not covered & taken, panel["title"]
        assert max(columns) < 24
        taken |= covered


def test_every_panel_has_a_title_a_unit_and_something_to_show() -> None:
    identifiers = [panel["id"] for panel in panels()]
    assert len(identifiers) == len(set(identifiers)) > 40
    for panel in panels():
        assert panel["title"] and panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
