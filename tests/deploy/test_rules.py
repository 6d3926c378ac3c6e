"""The rules are what promtool takes them for, each is tested both ways, and the runbook knows each of them."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from service.commands.app import app
from tests.deploy.queries import ALERTS, DEPLOY, RECORDING, ROOT, rule_queries, rules, selected

TESTS = sorted(Path(__file__).parent.glob("*.test.yml"))
RUNBOOK = (ROOT / "docs" / "operations.md").read_text("utf-8")

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool, of Prometheus, is not installed"
)


def promtool(*arguments: str) -> None:
    run = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stdout + run.stderr


@needs_promtool
def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(RECORDING), str(ALERTS))


@needs_promtool
def test_promtool_accepts_the_configuration() -> None:
    promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))


@needs_promtool
def test_promtool_accepts_the_configuration_for_kubernetes(tmp_path: Path) -> None:
    for file in (RECORDING, ALERTS):
        shutil.copy(file, tmp_path)
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.kubernetes.yml").read_text("utf-8"))
    (scraped,) = config["scrape_configs"]
    assert scraped.pop("kubernetes_sd_configs") == [{"role": "pod"}]  # some builds of Prometheus leave it out
    del scraped["tls_config"], scraped["authorization"]  # files that are not here
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


@needs_promtool
def test_every_alert_fires_when_it_should_and_not_when_it_should_not() -> None:
    promtool("test", "rules", *map(str, TESTS))


def test_every_alert_is_tested_both_ways() -> None:
    tests = [test for file in TESTS for test in yaml.safe_load(file.read_text("utf-8"))["tests"]]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    series = {given["series"].partition("{")[0] for test in tests for given in test["input_series"]}
    for rule in rules(ALERTS):
        firing = [case["exp_alerts"] for case in cases if case["alertname"] == rule["alert"]]
        assert any(firing), f"{rule['alert']} is never seen to fire"
        # Quiet at another time, or for another of the series given.
        assert [] in firing or rule["alert"] in ("InterlinearWrongProvider", *_CERTIFICATE), rule["alert"]
    asked = {selector.metric for query in rule_queries().values() for selector in selected(query)}
    assert {name for name in asked if not name.startswith("job:")} <= series


_CERTIFICATE = ("InterlinearCertificateEndsSoon", "InterlinearCertificateEndsNow")


def test_every_alert_says_how_urgent_it_is_and_what_happened() -> None:
    names = [rule["alert"] for rule in rules(ALERTS)]
    assert len(names) == len(set(names)) > 25
    for rule in rules(ALERTS):
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"].keys() == {"summary"}
        assert len(rule["annotations"]["summary"].split()) > 4


def test_every_alert_has_an_entry_in_the_runbook_and_every_entry_an_alert() -> None:
    entries = re.findall(r"^### (Interlinear\w+)$", RUNBOOK, flags=re.MULTILINE)
    assert sorted(entries) == sorted(rule["alert"] for rule in rules(ALERTS))


def test_every_entry_tells_what_it_means_what_users_feel_where_to_look_and_what_to_do() -> None:
    for entry in re.split(r"^### (?=Interlinear)", RUNBOOK, flags=re.MULTILINE)[1:]:
        entry = re.split(r"^## ", entry, flags=re.MULTILINE)[0]
        told = re.findall(r"^\* \*\*(.+?)\.\*\*", entry, flags=re.MULTILINE)
        assert told == ["Means", "Users feel", "Look at", "Do"], entry.splitlines()[0]


def test_an_entry_that_says_to_go_back_leads_to_how() -> None:
    assert "\n## Going back\n" in RUNBOOK
    entries = RUNBOOK.partition("\n## Alerts\n")[2]
    assert len(re.findall(r"\[go back\]\(#going-back\)", entries, flags=re.IGNORECASE)) >= 4
    assert not re.search(r"(?<!\[)\bgo back to\b", entries, flags=re.IGNORECASE)


def test_the_commands_of_the_runbook_exist() -> None:
    lines = re.findall(r"^ *(interlinear .+)$", RUNBOOK, flags=re.MULTILINE)
    assert any("--tls-server-name" in line for line in lines)
    for line in lines:
        run = CliRunner().invoke(app, [*shlex.split(line)[1:], "--help"], env={"INTERLINEAR_TLS_AUTHORITY": ""})
        assert run.exit_code == 0, f"{line}: {run.output}"


def test_the_runbook_names_only_metrics_that_the_rules_or_the_service_know() -> None:
    known = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "api.md").read_text("utf-8")))
    known |= {selector.metric for query in rule_queries().values() for selector in selected(query)}
    named = set(re.findall(r"`((?:interlinear|grpc_server)_\w+)`", RUNBOOK))
    assert named - known == set()
