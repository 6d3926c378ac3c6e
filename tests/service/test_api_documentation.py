import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import status_pb2
from prometheus_client import CollectorRegistry

from service import errors, json_api
from service.metrics import Metrics
from service.pb import interlinear_pb2 as pb
from service.requests import read_views
from service.settings import PREFIX, Settings
from service.status import CODES, code_of, http_status_of

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
PROTO = "service/pb/interlinear.proto"
GOOGLE_PROTOS = Path(str(status_pb2.__file__)).parents[2]


def rows(heading: str) -> dict[str, list[str]]:
    """Return the tables under a heading: the cells of each row by the name in its first cell."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (body,) = (part for part in section if part.startswith(f"{heading}\n"))
    cells = [re.split(r" *\| *", line.strip("| \n")) for line in body.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): [cell.strip("`") for cell in row[1:]] for row in cells}


def tree(root: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
    for child in root.__subclasses__():
        yield child
        yield from tree(child)


def generate(*arguments: str) -> None:
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-Iservice/pb={ROOT / 'protos/interlinear/v1'}",
        f"-I{GOOGLE_PROTOS}",
        *arguments,
        PROTO,
    ]
    subprocess.run(command, check=True)


def test_every_call_is_documented() -> None:
    calls = {f"{s.name}.{m.name}" for s in pb.DESCRIPTOR.services_by_name.values() for m in s.methods}
    assert calls <= rows("Calls").keys()


def test_every_option_is_documented() -> None:
    assert rows("Options").keys() == set(pb.DecodingOptions.DESCRIPTOR.fields_by_name)


def test_every_error_that_a_caller_can_meet_is_documented_with_its_code() -> None:
    leaves = [kind for kind in tree(errors.ServiceError) if not issubclass(kind, errors.StartupError)]
    documented = rows("Errors")
    for kind in leaves:
        if kind.reason in documented:
            assert documented.pop(kind.reason)[0] == code_of(kind.__new__(kind)).name
        else:
            assert kind.__subclasses__(), f"{kind.__name__} is not in docs/api.md"
    assert documented.keys() == {"INTERNAL"}
    assert set(CODES.values()) <= set(grpc.StatusCode)


def test_every_error_is_documented_with_its_http_status() -> None:
    statuses = {kind.reason: http_status_of(kind.__new__(kind)) for kind in tree(errors.ServiceError)}
    documented = {reason: int(cells[1]) for reason, cells in rows("Errors").items()}
    assert documented == {reason: statuses.get(reason, http_status_of(None)) for reason in documented}


def test_every_route_is_documented_and_no_other_is_and_every_call_has_one() -> None:
    routes = json_api.PUBLIC | json_api.ADMINISTRATION
    assert rows("HTTP").keys() == routes.keys() | {"GET /", "GET /metrics", "GET /healthz", "GET /readyz"}
    calls = {f"{s.name}.{m.name}" for s in pb.DESCRIPTOR.services_by_name.values() for m in s.methods}
    assert {rows("HTTP")[route][0] for route in routes} == calls
    assert all(rows("HTTP")[route][0].endswith(f".{name}") for route, name in routes.items())


def test_every_view_is_documented() -> None:
    documented = {view: cells[1] == "yes" for view, cells in rows("Views").items()}
    by_default = read_views([])
    assert documented == {name: number in by_default for name, number in pb.ExplanationView.items() if number}


def test_every_setting_is_documented_with_its_default_and_no_other_is() -> None:
    documented = rows("Settings")
    assert documented.keys() == {PREFIX + name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if name != "bundle":  # its default is a path inside the package
            assert documented[PREFIX + name.upper()][0] == str(field.default), name


def test_every_metric_is_documented_with_its_type_and_labels_and_no_other_is() -> None:
    metrics = Metrics.on(CollectorRegistry())
    expected = {}
    for metric in metrics.every():
        kind = type(metric).__name__.lower()
        name = metric._name + ("_total" if kind == "counter" else "")
        expected[name] = [kind, ", ".join(metric._labelnames) or "–"]
    assert {name: cells[:2] for name, cells in rows("Metrics").items()} == expected
    assert len(expected) == len(list(metrics.registry.collect()))


def test_generated_code_is_what_the_proto_says(tmp_path: Path) -> None:
    generate(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", f"--grpc_python_out={tmp_path}")
    fresh = {file.name: file.read_text("utf-8") for file in (tmp_path / "service" / "pb").iterdir()}
    assert len(fresh) == 3
    stale = [name for name, text in fresh.items() if (ROOT / "service" / "pb" / name).read_text("utf-8") != text]
    assert not stale, "run make protos"


def test_everything_in_the_proto_is_commented(tmp_path: Path) -> None:
    generate("--include_source_info", f"--descriptor_set_out={tmp_path / 'set'}")
    (file,) = FileDescriptorSet.FromString((tmp_path / "set").read_bytes()).file
    source = [
        line.split("//")[0] for line in (ROOT / "protos/interlinear/v1/interlinear.proto").read_text().splitlines()
    ]
    uncommented = {
        source[location.span[0]].strip()
        for location in file.source_code_info.location
        if _is_a_thing(list(location.path)) and not location.leading_comments.strip()
    }
    assert not uncommented


def _is_a_thing(path: list[int]) -> bool:
    """Return whether a path of protobuf's source info leads to a message, field, enum, value, service or method."""
    kinds = path[::2]
    return len(path) % 2 == 0 and kinds in ([4], [4, 2], [4, 8], [5], [5, 2], [6], [6, 2])
