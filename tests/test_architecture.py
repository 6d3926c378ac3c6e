"""The walls of the house: who imports whom, what may be absent, how large a room may grow, and what none is called."""

import ast
import functools
import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("bundle", "training", "exporters", "service")
MODULES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.parent != ROOT / "service" / "pb"
)
TEST_MODULES = sorted((ROOT / "tests").rglob("*.py"))

MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 5
JUNK_DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "core", "base", "manager"}

# A module or function over its limit stands here with its reason, and leaves when it no longer is.
LONG_MODULES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
WIDE_FUNCTIONS = {
    "service/commands/translate.py::translate": "a parameter of a typer command is an option of the command line",
    "service/commands/explain.py::explain": "as translate",
    "service/commands/align.py::text": "as translate",
    "service/commands/align.py::evaluate": "as translate",
    "service/commands/report.py::report": "as translate",
    "service/commands/what_if.py::what_if": "as translate",
    "service/commands/what_if.py::contrast": "as translate",
    "service/commands/what_if.py::alternatives": "as translate",
    "service/commands/command_line.py::secure": "as translate, for what stands before every command",
}

IMPORT_EVERYTHING = '''
import importlib, pkgutil, sys

class Without:
    """A finder that does not find what this test takes away, as if it were not installed."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {absent!r} else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import {package}
for module in pkgutil.walk_packages({package}.__path__, "{package}."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print(module.name)
'''


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", f"--config={ROOT / 'pyproject.toml'}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def copied_source(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=lambda folder, names: {"bundles", "__pycache__"})
    return tmp_path


def test_every_import_contract_is_kept() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("service/translator.py", "import torch"),
        ("service/settings.py", "import training.config"),
        ("service/explainer.py", "import onnxruntime"),
        ("service/scheduler.py", "import grpc"),
        ("service/engine.py", "import service.translator"),
        ("service/errors.py", "import service.settings"),
        ("service/helpers.py", ""),
        ("bundle/manifest.py", "import onnxruntime"),
        ("bundle/tables.py", "import training.corpus"),
        ("bundle/leftovers.py", ""),
        ("training/loop.py", "import service.errors"),
        ("training/checkpoint.py", "import exporters"),
        ("exporters/parity.py", "import service.engine"),
    ],
)
def test_an_import_against_the_grain_is_refused(copied_source: Path, module: str, line: str) -> None:
    with (copied_source / module).open("a") as file:
        file.write(f"\n{line}\n")
    result = lint_imports(copied_source)
    assert result.returncode == 1, result.stdout
    assert "BROKEN" in result.stdout or "not listed as layers" in result.stdout


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("bundle", {"torch", "onnx", "onnxruntime", "grpc", "prometheus_client", "service", "training", "exporters"}),
        ("service", {"torch", "lightning_fabric", "onnx", "onnxscript", "sacrebleu", "training", "exporters"}),
        ("training", {"onnx", "onnxruntime", "grpc", "prometheus_client", "service", "exporters"}),
        ("exporters", {"grpc", "prometheus_client", "service"}),
    ],
)
def test_a_package_imports_whole_with_what_it_must_not_need_absent(package: str, absent: set[str]) -> None:
    script = IMPORT_EVERYTHING.format(package=package, absent=absent)
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert f"{package}.errors" in result.stdout.split()


def test_no_other_distribution_ships_our_import_names() -> None:
    owners = importlib.metadata.packages_distributions()
    foreign = {name: set(owners.get(name, [])) - {"interlinear"} for name in PACKAGES}
    assert not any(foreign.values()), f"these packages would shadow ours or be overwritten by them: {foreign}"


def test_no_module_is_a_junk_drawer() -> None:
    names = {relative(path): {path.stem, path.parent.name} for path in MODULES + TEST_MODULES}
    assert not [path for path, parts in names.items() if parts & JUNK_DRAWERS]


def test_every_package_is_typed_and_tests_are_none() -> None:
    assert not [name for name in PACKAGES if not (ROOT / name / "py.typed").exists()]
    assert not [name for name in PACKAGES if not (ROOT / name / "__init__.py").exists()]
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_a_module_is_read_in_one_sitting() -> None:
    lines = {
        relative(path): sum(1 for line in path.read_text("utf-8").splitlines() if line.strip()) for path in MODULES
    }
    long = {path: count for path, count in lines.items() if count > MAX_MODULE_LINES}
    assert long.keys() == LONG_MODULES.keys(), f"over {MAX_MODULE_LINES} non-blank lines: {long}"


@functools.cache
def functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Return every function of our packages with its place, ``module.py::name``."""
    return [
        (f"{relative(path)}::{node.name}", node)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_a_function_fits_on_a_page() -> None:
    lines = {place: (node.end_lineno or node.lineno) - node.lineno + 1 for place, node in functions()}
    long = {place: count for place, count in lines.items() if count > MAX_FUNCTION_LINES}
    assert long.keys() == LONG_FUNCTIONS.keys(), f"over {MAX_FUNCTION_LINES} lines: {long}"


def test_a_function_takes_at_most_five_parameters() -> None:
    many = {}
    for place, node in functions():
        names = [argument.arg for argument in node.args.posonlyargs + node.args.args + node.args.kwonlyargs]
        if len([name for name in names if name not in {"self", "cls"}]) > MAX_PARAMETERS:
            many[place] = names
    assert many.keys() == WIDE_FUNCTIONS.keys(), f"over {MAX_PARAMETERS} parameters: {many}"
