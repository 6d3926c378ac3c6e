"""Every call × every role × every state of credentials, over both transports, against services in their own processes.

What should come out is worked out from the proto's services and the route tables alone, so a call, a route or a service
that nobody gave a rule fails here.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import grpc
import httpx
import pytest
import trustme
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from service import exposition, json_api, web
from service.access.principals import ROLES
from service.http_server import create_app
from service.pb import interlinear_pb2 as pb
from tests.service.access.files import TlsFiles, entry, issued, write_tls
from tests.service.edge import ServiceProcess, service_process

ROLES_OF_SERVICE = {
    "TranslationService": {"translate"},
    "ExplanationService": {"explain"},
    "ModelService": set(ROLES),
    "ModelAdminService": {"admin"},
}
RPCS = {method.name: method for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods}
ROUTES = {**json_api.PUBLIC, **json_api.ADMINISTRATION}
OPEN_PATHS = {"/healthz", "/readyz"}

AUTHORITY, CLIENTS, STRANGERS = trustme.CA(), trustme.CA(), trustme.CA()
PAST, FUTURE = "2001-01-01", "9999-12-31"

# What a request with nothing in it comes to, once it is let in.
LET_IN = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}
SHAKEN_OFF = "no handshake"


def key_of(role: str, state: str) -> str:
    return f"ilk_{role}_{state}"


def name_of(role: str, state: str) -> str:
    return f"{role}.{state}.example"


def credentials() -> str:
    """Return a file with a principal for each role, and its twin whose last day has passed."""
    return "".join(
        entry(
            f"{role}-{state}", f'"{role}"', key_of(role, state), certificate=f'["{name_of(role, state)}"]', expires=day
        )
        for role in ROLES
        for state, day in (("right", FUTURE), ("expired", PAST))
    )


def roles_of(call: str) -> set[str]:
    """Return the roles that open a method of the proto."""
    return ROLES_OF_SERVICE[RPCS[call].containing_service.name]


@dataclass(frozen=True)
class Identity:
    """Somebody who asks.

    Attributes:
        what: How it makes itself known, and whose role it has: the name of a case.
        key: Header and value.
        certificate: That it shakes hands with.
        refusal: The reason it should be refused with whatever it asks for; empty if it is known.
        role: Its role, if it is known.
    """

    what: str
    key: tuple[str, str] | None = None
    certificate: trustme.LeafCert | None = None
    refusal: str = ""
    role: str = ""

    def expected(self, roles: set[str]) -> str:
        """Return what should come of a call that ``roles`` open."""
        return self.refusal or ("" if self.role in roles else "PERMISSION_DENIED")


def bearer(key: str) -> tuple[str, str]:
    return "authorization", f"Bearer {key}"


BY_KEY = [
    Identity("nothing", refusal="CREDENTIALS_MISSING"),
    Identity("a password", ("authorization", "Basic aWxrX3RyYW5zbGF0ZV9yaWdodDo="), refusal="CREDENTIALS_MISSING"),
    Identity("an empty key", ("x-api-key", ""), refusal="CREDENTIALS_INVALID"),
    Identity("a wrong key", bearer("ilk_" + "x" * 43), refusal="CREDENTIALS_INVALID"),
    Identity("most of a key", bearer(key_of("admin", "right")[:-1]), refusal="CREDENTIALS_INVALID"),
    *(Identity(f"{role}, expired", bearer(key_of(role, "expired")), refusal="CREDENTIALS_EXPIRED") for role in ROLES),
    *(Identity(f"{role}", bearer(key_of(role, "right")), role=role) for role in ROLES),
    *(Identity(f"{role}, other header", ("x-api-key", key_of(role, "right")), role=role) for role in ROLES),
]


def certificate(name: str, days: float = 30.0) -> trustme.LeafCert:
    return issued(CLIENTS, name, days)


ADMIN, NOBODY = certificate(name_of("admin", "right")), certificate("nobody.example")
BY_CERTIFICATE = [
    Identity("nothing", refusal="CREDENTIALS_MISSING"),
    Identity("a key alone", bearer(key_of("admin", "right")), refusal="CREDENTIALS_MISSING"),
    Identity("a stranger's", certificate=issued(STRANGERS, name_of("admin", "right")), refusal=SHAKEN_OFF),
    Identity("an expired one", certificate=certificate(name_of("admin", "right"), -1), refusal=SHAKEN_OFF),
    Identity("an unknown name", certificate=NOBODY, refusal="CREDENTIALS_INVALID"),
    Identity("a wrong key with it", bearer("ilk_wrong"), ADMIN, refusal="CREDENTIALS_INVALID"),
    Identity("a key with it", bearer(key_of("translate", "right")), ADMIN, role="translate"),
    *(
        Identity(f"{role}, expired", certificate=certificate(name_of(role, "expired")), refusal="CREDENTIALS_EXPIRED")
        for role in ROLES
    ),
    *(Identity(f"{role}", certificate=certificate(name_of(role, "right")), role=role) for role in ROLES),
]


@dataclass(frozen=True)
class Caller:
    """An identity with its connections to a service.

    Attributes:
        identity: Who.
        service: Which is asked.
        mutual: Whether the service asks for certificates.
    """

    identity: Identity
    service: ServiceProcess
    mutual: bool

    @cached_property
    def channels(self) -> Mapping[str, grpc.Channel]:
        chain, key = None, None
        if self.identity.certificate is not None:
            chain = self.identity.certificate.cert_chain_pems[0].bytes()
            key = self.identity.certificate.private_key_pem.bytes()
        trust = grpc.ssl_channel_credentials(AUTHORITY.cert_pem.bytes(), key, chain)
        addresses = {"public": self.service.address, "admin": self.service.admin_grpc_address}
        return {listener: grpc.secure_channel(address, trust) for listener, address in addresses.items()}

    @cached_property
    def http(self) -> httpx.Client:
        trust = httpx.create_ssl_context()
        AUTHORITY.configure_trust(trust)
        if self.identity.certificate is not None:
            self.identity.certificate.configure_cert(trust)
        return httpx.Client(verify=trust, headers=[self.identity.key] if self.identity.key else [])

    def close(self) -> None:
        for channel in self.channels.values():
            channel.close()
        self.http.close()

    def over_grpc(self, listener: str, path: str, request: bytes = b"") -> str:
        """Return code, or reason if there is one, of a call with nothing in its request."""
        ask = self.channels[listener].stream_stream(path)
        try:
            list(ask(iter([request]), metadata=[self.identity.key] if self.identity.key else [], timeout=20))
        except grpc.RpcError as error:
            return _reason(error) or SHAKEN_OFF
        return "OK"

    def over_http(self, listener: str, verb: str, path: str) -> tuple[int, str]:
        """Return HTTP status, and reason if there is one, of a request with nothing in it."""
        address = self.service.http_address if listener == "public" else self.service.admin_http_address
        try:
            response = self.http.request(verb, f"https://{address}{path}", json={} if verb == "POST" else None)
        except (
            httpx.ConnectError,
            httpx.ReadError,
            httpx.RemoteProtocolError,
        ):  # after the client's last word in TLS 1.3
            return 0, SHAKEN_OFF
        if not response.is_error:
            return response.status_code, "OK"
        reasons = [detail.get("reason") for detail in response.json()["details"] if "reason" in detail]
        return response.status_code, reasons[0]


def _reason(error: grpc.RpcError) -> str:
    """Return the reason in the details of an error; nothing if it is not the service's."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return ""


REASONS_OF_ACCESS = {
    "CREDENTIALS_MISSING": 401,
    "CREDENTIALS_INVALID": 401,
    "CREDENTIALS_EXPIRED": 401,
    "PERMISSION_DENIED": 403,
}


def is_refused(got: str) -> bool:
    return got in REASONS_OF_ACCESS or got in (SHAKEN_OFF, "INTERNAL", "METHOD_UNKNOWN", "DRAINING", "ENGINE_UNREADY")


@pytest.fixture(scope="module", params=["keys", "certificates"])
def callers(
    request: pytest.FixtureRequest, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Caller]]:
    """Everybody who may ask a service that knows callers by their keys, or by their certificates."""
    folder, mutual = tmp_path_factory.mktemp("access"), request.param == "certificates"
    files: TlsFiles = write_tls(folder, issued(AUTHORITY, "127.0.0.1"), CLIENTS)
    (folder / "credentials.toml").write_text(credentials())
    settings = {name.upper(): str(file) for name, file in files.settings.items()}
    if not mutual:
        del settings["TLS_CLIENT_AUTHORITY"]
    with service_process(tiny_bundle, CREDENTIALS=str(folder / "credentials.toml"), **settings) as service:
        known = BY_CERTIFICATE if mutual else BY_KEY
        found = [Caller(identity, service, mutual) for identity in known]
        yield found
        for caller in found:
            caller.close()


def listener_of(call: str) -> str:
    return "admin" if RPCS[call].containing_service.name == "ModelAdminService" else "public"


@pytest.mark.parametrize("call", RPCS)
def test_every_rpc_is_answered_to_whom_its_service_says_and_to_nobody_else(callers: list[Caller], call: str) -> None:
    path = f"/{RPCS[call].containing_service.full_name}/{call}"
    for caller in callers:
        got, expected = caller.over_grpc(listener_of(call), path), caller.identity.expected(roles_of(call))
        if caller.mutual and caller.identity.certificate is None:
            expected = SHAKEN_OFF
        assert (got == expected) if expected else not is_refused(got), f"{caller.identity.what}: {got}"


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_is_answered_to_whom_its_call_says_and_to_nobody_else(callers: list[Caller], route: str) -> None:
    verb, path = route.split()
    for caller in callers:
        status, got = caller.over_http(listener_of(ROUTES[route]), verb, path.format(name="tiny"))
        expected = caller.identity.expected(roles_of(ROUTES[route]))
        assert (got == expected) if expected else not is_refused(got), f"{caller.identity.what}: {got}"
        assert status == REASONS_OF_ACCESS.get(expected, status)


def test_the_metrics_are_shown_to_monitors_and_administrators_on_the_listener_of_whoever_runs_the_service(
    callers: list[Caller],
) -> None:
    for caller in callers:
        expected = caller.identity.expected({"monitor", "admin"}) or "OK"
        assert caller.over_http("admin", "GET", exposition.PATH)[1] == expected, caller.identity.what
        shaken_off = expected == SHAKEN_OFF
        assert caller.over_http("public", "GET", exposition.PATH)[0] == (0 if shaken_off else 404)


@pytest.mark.parametrize("listener", ["public", "admin"])
def test_probes_health_and_reflection_are_open_to_everybody_who_gets_a_connection(
    callers: list[Caller], listener: str
) -> None:
    reflected = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    for caller in callers:
        shaken_off = caller.identity.refusal == SHAKEN_OFF
        for path in OPEN_PATHS:
            assert caller.over_http(listener, "GET", path)[0] == (0 if shaken_off else 200), caller.identity.what
        connected = not shaken_off and not (caller.mutual and caller.identity.certificate is None)
        for path, asked in (
            ("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest().SerializeToString()),
            ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", reflected),
        ):
            assert caller.over_grpc(listener, path, asked) == ("OK" if connected else SHAKEN_OFF), caller.identity.what


def test_the_explorer_is_open_to_everybody_who_gets_a_connection(callers: list[Caller]) -> None:
    for caller in callers:
        expected = 0 if caller.identity.refusal == SHAKEN_OFF else 200
        assert caller.over_http("public", "GET", "/")[0] == expected, caller.identity.what
    nobody = next(caller for caller in callers if caller.identity.what == "nothing")
    assert {nobody.over_http("public", "GET", path)[0] for path in web.FILES} == {200}


def test_a_call_is_answered_on_its_own_listener_only(callers: list[Caller]) -> None:
    caller = next(caller for caller in callers if caller.identity.role == "admin")
    for call, method in RPCS.items():
        other = {"public": "admin", "admin": "public"}[listener_of(call)]
        assert caller.over_grpc(other, f"/{method.containing_service.full_name}/{call}") == "METHOD_UNKNOWN"
    for route, call in ROUTES.items():
        verb, path = route.split()
        other = {"public": "admin", "admin": "public"}[listener_of(call)]
        assert caller.over_http(other, verb, path.format(name="tiny"))[0] == 404


def test_every_call_of_the_proto_has_a_route_and_nothing_else_is_served() -> None:
    assert sorted(ROUTES.values()) == sorted(RPCS)
    assert {ROUTES[route] for route in json_api.ADMINISTRATION} == {
        name for name in RPCS if listener_of(name) == "admin"
    }
    assert {route.path for route in create_app(lambda: True).routes} == OPEN_PATHS  # type: ignore[attr-defined]


def test_the_matrix_has_every_role_in_every_state() -> None:
    for known in (BY_KEY, BY_CERTIFICATE):
        assert {identity.role for identity in known} - {""} == set(ROLES)
        whats = [identity.what for identity in known]
        assert all(f"{role}{state}" in whats for role, state in itertools.product(ROLES, ("", ", expired")))
