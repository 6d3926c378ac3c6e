"""The service's settings: read once from ``INTERLINEAR_*`` environment variables, checked once, then frozen.

Every problem is reported in one message, in the words of the environment variables.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import InvalidSettings

PREFIX = "INTERLINEAR_"

EMBEDDED_BUNDLE = Path(__file__).parent / "bundles" / "en-fr"
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s:\[\]/]+):(?P<port>[0-9]{1,5})")
_DEVICE = re.compile(r"cpu|cuda:[0-9]+")

_OF_CLIENTS = ("KEY", "KEY_FILE", "TLS_AUTHORITY", "CLIENT_CERTIFICATE", "CLIENT_CERTIFICATE_KEY")  # of the commands


def split_address(address: str) -> tuple[str, int]:
    """Return host (without the brackets of IPv6) and port of ``host:port``.

    >>> split_address("[::1]:8080")
    ('::1', 8080)

    Raises:
        ValueError: it is not ``host:port``, or the port is above 65535.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > 65535:
        raise ValueError("write it as host:port with a port from 0 to 65535, for instance 127.0.0.1:8080 or [::1]:8080")
    return match["host"].strip("[]"), int(match["port"])


def _check_address(address: str) -> str:
    split_address(address)
    return address


def _check_device(device: str) -> str:
    if _DEVICE.fullmatch(device) is None:
        raise ValueError("allowed are cpu and cuda:N with N the number of the GPU, for instance cuda:0")
    return device


Address = Annotated[str, AfterValidator(_check_address)]
Device = Annotated[str, AfterValidator(_check_device)]


class Settings(BaseSettings):
    """All settings. The environment variable of each is ``INTERLINEAR_`` and its name in capitals.

    Attributes:
        grpc_address: Where gRPC listens, ``host:port``; port 0 lets the system choose.
        http_address: Where HTTP listens (explorer, calls, probes), ``host:port``.
        admin_grpc_address: Where the calls that administer models listen, ``host:port``, or ``off``.
        admin_http_address: Where metrics, probes and the same calls listen, ``host:port``, or ``off``.
        tls_certificate: PEM file of the certificate chain, the service's own first; with it every listener speaks TLS.
        tls_key: PEM file of its private key.
        tls_client_authority: PEM file of the authorities that sign client certificates; with it every caller must have
            one.
        credentials: File of who may come in, and for what; without it everybody may.
        allow_unprotected: Whether to listen on other addresses than loopback without TLS and credentials, and to answer
            under any name without them.
        bundle: Folder of the bundle to serve; the embedded English→French one by default.
        models: Folder whose subfolders are bundles to serve; watched. ``bundle`` is then served only if it is set.
        models_poll_seconds: How often that folder is looked at; 0 leaves it to the administrative calls.
        models_memory_bytes: Size of all loaded bundles' files; 0 sets no limit.
        reverse_bundle: Folder of a bundle of the reverse direction; with it, alignments may be drawn from both. None by
            default.
        device: ``cpu`` or ``cuda:N``. The service refuses to start on another device than the one asked for.
        threads: Threads that decode, of all lanes together; 0 takes the processors this process may run on.
        queue_capacity: Sentences that may wait for a place in a batch; one more is refused at once. Those that follow
            another of the same call are taken all the same.
        queue_tokens: Source tokens of all sentences that may wait, with the same exception; where nobody waits, any
            sentence may.
        batch_hypotheses: Hypotheses decoded at once: a sentence takes as many as its beam size.
        step_tokens: Source tokens, padding included, times hypotheses that one step may attend over; a longer single
            sentence is decoded alone.
        encode_tokens: Source tokens, padding included, of one encoder call; longer queues are encoded in several calls.
        max_texts: Texts in one request.
        max_request_bytes: Size of one request message.
        max_response_bytes: Size of one response message.
        cache_bytes: Size of the cache of translations; 0 keeps none.
        memory_limit_bytes: Resident size above which new work is refused; 0 takes nine tenths of the container's limit,
            if it has one.
        watchdog_seconds: Longest that one step of a batch, or one encoder call, may take; a slower engine is given up
            and loaded anew.
        drain_delay_seconds: Seconds that a stopping process still takes calls after health says NOT_SERVING, so that
            balancers notice first.
        drain_seconds: Seconds that a stopping process gives to what it has accepted.
        traces: ``otlp`` sends OpenTelemetry traces where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says; it needs the extra
            ``traces``.
        log_level: Least severe level that is logged.
        log_format: ``json`` for machines, ``console`` for people.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    grpc_address: Address = "127.0.0.1:50051"
    http_address: Address = "127.0.0.1:8080"
    admin_grpc_address: Address | Literal["off"] = "127.0.0.1:50052"
    admin_http_address: Address | Literal["off"] = "127.0.0.1:9464"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_authority: Path | None = None
    credentials: Path | None = None
    allow_unprotected: bool = False
    bundle: Path = EMBEDDED_BUNDLE
    models: Path | None = None
    models_poll_seconds: float = Field(default=5.0, ge=0, le=3600, allow_inf_nan=False)
    models_memory_bytes: int = Field(default=0, ge=0)
    reverse_bundle: Path | None = None
    device: Device = "cpu"
    threads: int = Field(default=0, ge=0, le=256)
    queue_capacity: int = Field(default=512, ge=1, le=100_000)
    queue_tokens: int = Field(default=65_536, ge=1024, le=100_000_000)
    batch_hypotheses: int = Field(default=128, ge=16, le=4096)
    step_tokens: int = Field(default=8192, ge=16, le=100_000_000)
    encode_tokens: int = Field(default=2048, ge=16, le=1_000_000)
    max_texts: int = Field(default=128, ge=1, le=1024)
    max_request_bytes: int = Field(default=4 << 20, ge=1024, le=1 << 30)
    max_response_bytes: int = Field(default=16 << 20, ge=1024, le=1 << 30)
    cache_bytes: int = Field(default=0, ge=0)
    memory_limit_bytes: int = Field(default=0, ge=0)
    watchdog_seconds: float = Field(default=30.0, gt=0, le=3600, allow_inf_nan=False)
    drain_delay_seconds: float = Field(default=0.5, ge=0, le=600, allow_inf_nan=False)
    drain_seconds: float = Field(default=30.0, ge=0, le=3600, allow_inf_nan=False)
    traces: Literal["off", "otlp"] = "off"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"


def read_settings(**overrides: object) -> Settings:
    """Return the settings of this process.

    Args:
        overrides: Settings given otherwise, for instance on the command line; they win over the environment.

    Raises:
        InvalidSettings: one or more settings are wrong; the message lists all of them.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic checks them, and that is the point
    except ValidationError as error:
        faults = [
            f"  {PREFIX}{'_'.join(map(str, fault['loc'])).upper()}={fault['input']!s}: {_sentence(fault['msg'])}"
            for fault in error.errors()
        ]
        raise InvalidSettings("\n".join(["the settings are wrong:", *faults])) from None


def misspelled_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that look like a setting with a typing error, each with the name probably meant.

    Unknown variables are not refused: Kubernetes sets ``INTERLINEAR_PORT`` and its like for a service of that name.
    """
    known = [PREFIX + name.upper() for name in Settings.model_fields] + [PREFIX + name for name in _OF_CLIENTS]
    found = {}
    for name in environ:
        if name.startswith(PREFIX) and name not in known and (near := difflib.get_close_matches(name, known, 1, 0.85)):
            found[name] = near[0]
    return found


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ")
