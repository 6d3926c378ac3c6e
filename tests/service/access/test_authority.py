import hmac
from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry

from service.access.authority import Authority
from service.access.credentials import new_key
from service.access.principals import ANYONE, ROLE_OF, ROLES, Principal, Quota
from service.errors import (
    CredentialsExpired,
    CredentialsInvalid,
    CredentialsMissing,
    InvalidSettings,
    PermissionDenied,
    ServiceError,
)
from service.metrics import Metrics
from service.pb import interlinear_pb2 as pb
from service.settings import read_settings
from tests.service.access.files import entry

DAY = 86_400.0


class Clock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def authority(file: Path | None, clock: Clock | None = None, **settings: object) -> Authority:
    metrics = Metrics.on(CollectorRegistry())
    return Authority(read_settings(credentials=file, **settings), metrics, clock or Clock())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "credentials.toml"
    file.write_text(
        entry("newsroom", '"translate", "explain"', "ilk_a", expires="1970-01-10")
        + entry("ops", '"admin"', "ilk_b", certificate='["ops.example", "spiffe://example/ops"]')
        + entry("robot", '"monitor"', certificate='["robot.example"]', expires="1970-01-02")
    )
    return file


def test_without_a_credentials_file_everybody_is_anyone_and_may_do_everything() -> None:
    own = authority(None)
    for key, names in ((None, ()), ("ilk_x", ("a.example",))):
        assert own.identify(key, names) is ANYONE
    for call in ROLE_OF:
        own.permit(ANYONE, call)


@pytest.mark.parametrize(
    ("key", "names", "name"),
    [
        ("ilk_a", (), "newsroom"),
        ("ilk_b", (), "ops"),
        (None, ("ops.example",), "ops"),
        (None, ("nobody.example", "spiffe://example/ops"), "ops"),
        (None, ("robot.example", "ops.example"), "robot"),
        ("ilk_a", ("ops.example",), "newsroom"),
    ],
)
def test_a_key_decides_and_else_the_first_name_of_the_certificate_that_is_known(
    file: Path, key: str | None, names: Sequence[str], name: str
) -> None:
    assert authority(file).identify(key, names).name == name


@pytest.mark.parametrize(
    ("key", "names", "error"),
    [
        (None, (), CredentialsMissing),
        (None, ("nobody.example",), CredentialsInvalid),
        ("", (), CredentialsInvalid),
        ("ilk_", (), CredentialsInvalid),
        ("ilk_A", (), CredentialsInvalid),
        ("ilk_\udcff\u0000☃", (), CredentialsInvalid),
        ("x" * 1_000_000, (), CredentialsInvalid),
        ("ilk_x", ("ops.example",), CredentialsInvalid),
    ],
)
def test_who_is_not_known_is_refused_and_a_certificate_never_makes_good_a_wrong_key(
    file: Path, key: str | None, names: Sequence[str], error: type[ServiceError]
) -> None:
    with pytest.raises(error) as caught:
        authority(file).identify(key, names)
    assert not key or len(key) < 5 or key not in str(caught.value)


@pytest.mark.parametrize(("key", "names", "day"), [("ilk_a", (), 10), (None, ("robot.example",), 2)])
def test_credentials_are_good_to_the_end_of_their_last_day(
    file: Path, key: str | None, names: Sequence[str], day: int
) -> None:
    clock = Clock()
    own = authority(file, clock)
    clock.now = day * DAY - 0.001
    own.identify(key, names)
    clock.now = day * DAY
    with pytest.raises(CredentialsExpired, match="get new ones"):
        own.identify(key, names)


def test_where_certificates_are_required_a_key_alone_is_not_enough(file: Path) -> None:
    own = authority(file, tls_client_authority="clients.pem")
    with pytest.raises(CredentialsMissing, match="client certificate"):
        own.identify("ilk_a", ())
    assert own.identify("ilk_a", ("nobody.example",)).name == "newsroom"
    with pytest.raises(CredentialsMissing):
        authority(None, tls_client_authority="clients.pem").identify(None, ())
    assert authority(None, tls_client_authority="clients.pem").identify(None, ("whoever",)) is ANYONE


def test_a_key_is_compared_with_every_one_in_constant_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def counting(known: bytes, given: bytes, compare=hmac.compare_digest) -> bool:  # type: ignore[no-untyped-def]
        compared.append(known)
        return bool(compare(known, given))

    monkeypatch.setattr(hmac, "compare_digest", counting)
    own = authority(file)
    for key, known in (("ilk_a", True), ("ilk_b", True), ("ilk_x", False)):
        compared.clear()
        if known:
            own.identify(key, ())
        else:
            with pytest.raises(CredentialsInvalid):
                own.identify(key, ())
        assert len(compared) == 2


@pytest.mark.parametrize("call", ROLE_OF)
@pytest.mark.parametrize("role", ROLES)
def test_a_call_is_open_to_the_roles_that_the_table_names(call: str, role: str) -> None:
    own, roles = authority(None), ROLE_OF[call]
    principal = Principal("a", frozenset({role}), Quota())
    if roles is None or role in roles:
        own.permit(principal, call)
        return
    with pytest.raises(PermissionDenied, match=f"{call} takes the role .*; 'a' has {role}"):
        own.permit(principal, call)


def test_every_call_of_the_proto_has_a_rule() -> None:
    calls = {method.name for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods}
    assert calls == {name for name in ROLE_OF if not name.startswith("/")}


def test_a_call_without_a_rule_is_answered_to_nobody() -> None:
    with pytest.raises(KeyError):
        authority(None).permit(ANYONE, "Forgotten")


def test_a_new_file_counts_without_a_restart(file: Path) -> None:
    own, key = authority(file), new_key()
    file.write_text(entry("late", key=key))
    own.reload()
    assert own.identify(key, ()).name == "late"
    with pytest.raises(CredentialsInvalid):
        own.identify("ilk_a", ())


@pytest.mark.parametrize("broken", ["", "[[principal]", entry("newsroom"), None])
def test_a_file_that_has_become_wrong_changes_nothing_and_is_told_once(file: Path, broken: str | None) -> None:
    metrics = Metrics.on(CollectorRegistry())
    own = Authority(read_settings(credentials=file), metrics, Clock())
    good = file.read_text()
    file.unlink()
    if broken is not None:
        file.write_text(broken)
    with structlog.testing.capture_logs() as logged:
        own.reload()
        own.reload()
    assert [event["log_level"] for event in logged] == ["error"]
    assert own.identify("ilk_a", ()).name == "newsroom"
    value = metrics.registry.get_sample_value
    assert value("interlinear_credentials_refused") == 1
    file.write_text(good + entry("late", key="ilk_late"))
    own.reload()
    assert own.identify("ilk_late", ()).name == "late"
    assert value("interlinear_credentials_refused") == 0
    assert value("interlinear_credential_reloads_total", {"result": "refused"}) == 1
    assert value("interlinear_credential_reloads_total", {"result": "loaded"}) == 1


def test_a_file_that_cannot_be_read_stops_the_start_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="nothing.toml cannot be read: No such file or directory"):
        authority(tmp_path / "nothing.toml")


def test_refusals_are_counted_by_reason(file: Path) -> None:
    metrics = Metrics.on(CollectorRegistry())
    own = Authority(read_settings(credentials=file), metrics, lambda: 1e12)
    for key in (None, "ilk_x", "ilk_a"):
        with pytest.raises(ServiceError):
            own.identify(key, ())
    with pytest.raises(PermissionDenied):
        own.permit(Principal("a", frozenset({"monitor"}), Quota()), "Translate")
    for reason in ("CREDENTIALS_MISSING", "CREDENTIALS_INVALID", "CREDENTIALS_EXPIRED", "PERMISSION_DENIED"):
        assert metrics.registry.get_sample_value("interlinear_access_refusals_total", {"reason": reason}) == 1
