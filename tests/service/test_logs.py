import asyncio
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from service import logs, tracing
from service.settings import read_settings
from tests.service.trace_receiver import trace_receiver


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in captured.readouterr().err.splitlines()]


def test_an_event_carries_what_is_bound_around_it(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(read_settings())
    with logs.bound(request_id="r-1"), logs.bound(model="en-fr@2", digest="ab"):
        structlog.get_logger().warning("slow", seconds=2)
    structlog.get_logger().info("idle")
    slow, idle = lines(capsys)
    assert slow.pop("timestamp")
    assert slow == {
        "event": "slow",
        "level": "warning",
        "seconds": 2,
        "request_id": "r-1",
        "model": "en-fr@2",
        "digest": "ab",
    }
    assert "request_id" not in idle


async def test_what_a_call_is_about_stays_with_it_after_it_failed(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(read_settings())

    async def call(number: int) -> None:
        with logs.bound(request_id=f"r-{number}"):
            try:
                logs.about(digest=f"d-{number}")
                await asyncio.sleep(0)
                raise RuntimeError("no")
            except RuntimeError:
                structlog.get_logger().error("call failed")

    await asyncio.gather(*(asyncio.create_task(call(number)) for number in range(3)))
    structlog.get_logger().info("idle")
    *failed, idle = lines(capsys)
    assert [(line["request_id"], line["digest"]) for line in failed] == [(f"r-{n}", f"d-{n}") for n in range(3)]
    assert "digest" not in idle


def test_an_event_names_its_trace(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    logs.configure(read_settings())
    with trace_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        with tracing.sending("otlp"), tracing.serving("a.Service", "Call", {}):
            structlog.get_logger().info("traced")
            trace_id = tracing.current_trace_id()
    assert [line["trace_id"] for line in lines(capsys) if line["event"] == "traced"] == [trace_id]


def test_what_libraries_log_has_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(read_settings())
    with logs.bound(request_id="r-2"):
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("it failed: %s", "why")
    logging.getLogger("asyncio").info("not heard")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("outdated", DeprecationWarning, stacklevel=1)
    failed, warned = lines(capsys)
    assert (failed["event"], failed["level"], failed["logger"]) == ("it failed: why", "error", "uvicorn.error")
    assert failed["request_id"] == "r-2"
    assert "ValueError: broken" in str(failed["exception"])
    assert warned["logger"] == "py.warnings"


def test_headers_that_grpc_cannot_read_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(read_settings())
    log = logging.getLogger("grpc._cython.cygrpc")
    log.error("Invalid encoding on %s", b"Bearer secret\xff")
    log.error("something else")
    assert [line["event"] for line in lines(capsys)] == ["something else"]


def test_the_level_is_the_one_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(read_settings(log_level="error"))
    structlog.get_logger().warning("not heard")
    logging.getLogger("asyncio").warning("nor this")
    structlog.get_logger().error("heard")
    assert [line["event"] for line in lines(capsys)] == ["heard"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_values(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    logs.configure(read_settings(log_format=log_format))

    def translate(text: str) -> None:
        raise RuntimeError("no")

    try:
        translate("sec" + "ret")
    except RuntimeError:
        structlog.get_logger().exception("call failed")
        logging.getLogger("asyncio").exception("call failed")
    said = capsys.readouterr().err
    assert said.count("RuntimeError: no") == 2
    assert "secret" not in said
