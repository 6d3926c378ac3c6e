"""Who a caller is, by API key or client certificate, and whether it may do what it asks for."""

import hmac
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from service.access.credentials import Credential, key_digest, parse_credentials
from service.access.principals import ANYONE, ROLE_OF, Principal
from service.errors import (
    CredentialsExpired,
    CredentialsInvalid,
    CredentialsMissing,
    InvalidSettings,
    PermissionDenied,
    ServiceError,
)
from service.metrics import Metrics
from service.settings import Settings

_HOW = "send one as `authorization: Bearer KEY`"
_log = structlog.get_logger()


class Authority:
    """What the credentials file says, read again when it changes. Counts what it refuses.

    Args:
        settings: ``credentials`` and ``tls_client_authority``. Without the former everybody is ``ANYONE``; with the
            latter a caller needs a client certificate, whatever key it has.
        metrics: Where refusals and reloads are counted.
        now: Unix time, by which credentials expire.

    Raises:
        InvalidSettings: The file cannot be read or is wrong; the message lists every fault.
    """

    def __init__(self, settings: Settings, metrics: Metrics, now: Callable[[], float] = time.time) -> None:
        self._file: Path | None = settings.credentials
        self._certificate_required = settings.tls_client_authority is not None
        self._metrics = metrics
        self._now = now
        self._seen: bytes | str = b""
        self._credentials: tuple[Credential, ...] = ()
        if self._file is not None:
            self._seen = _content(self._file)
            if isinstance(self._seen, str):
                raise InvalidSettings(self._seen)
            self._credentials = parse_credentials(self._seen, f"the credentials file {self._file}")

    def identify(self, key: str | None, certificate_names: Sequence[str]) -> Principal:
        """Return who a caller is.

        A key, where there is one, decides; a wrong one is never made good by a certificate.

        Args:
            key: What the caller sent as API key, if it did.
            certificate_names: Common name and alternative names of its client certificate, in this order, verified by
                the transport; empty if it has none. The first that the file names decides.

        Raises:
            CredentialsMissing: It sent neither, or no certificate where one is required.
            CredentialsInvalid: The file names neither.
            CredentialsExpired: It did until a day that has passed.
        """
        if self._certificate_required and not certificate_names:
            raise self._refused(CredentialsMissing("this service asks for a client certificate with a name in it"))
        if self._file is None:
            return ANYONE
        if key is not None:
            found = _by_key(self._credentials, key_digest(key))
        else:
            found = _by_certificate(self._credentials, certificate_names)
        if found is None and key is not None:
            raise self._refused(CredentialsInvalid(f"this is no key of this service; {_HOW} that is"))
        if found is None and certificate_names:
            message = f"this service does not know the client certificate; use one that it knows, or a key: {_HOW}"
            raise self._refused(CredentialsInvalid(message))
        if found is None:
            raise self._refused(CredentialsMissing(f"this service asks for an API key; {_HOW}"))
        if self._now() >= found.expiry_timestamp:
            raise self._refused(
                CredentialsExpired(f"the credentials of {found.principal.name!r} expired; get new ones")
            )
        return found.principal

    def permit(self, principal: Principal, call: str) -> None:
        """Return if ``principal`` may make ``call``, a method of the proto or a path of ``ROLE_OF``.

        Raises:
            PermissionDenied: It has none of the roles that may.
        """
        roles = ROLE_OF[call]
        if roles is not None and not roles & principal.roles:
            needed = " or ".join(sorted(roles))
            message = f"{call} takes the role {needed}; {principal.name!r} has {', '.join(sorted(principal.roles))}"
            raise self._refused(PermissionDenied(message))

    def reload(self) -> None:
        """Read the file again; one that has become wrong changes nothing but log and metrics."""
        if self._file is None or (seen := _content(self._file)) == self._seen:
            return
        self._seen = seen
        try:
            if isinstance(seen, str):
                raise InvalidSettings(seen)
            self._credentials = parse_credentials(seen, f"the credentials file {self._file}")
        except InvalidSettings as error:
            self._metrics.access.credential_reloads.labels("refused").inc()
            self._metrics.access.credentials_refused.set(1)
            _log.error("credentials not reloaded; those read before stay in force", faults=str(error))
        else:
            self._metrics.access.credential_reloads.labels("loaded").inc()
            self._metrics.access.credentials_refused.set(0)
            _log.info("credentials reloaded", principals=len(self._credentials))

    def _refused(self, error: ServiceError) -> ServiceError:
        self._metrics.access.refusals.labels(error.reason).inc()
        return error


def _content(file: Path) -> bytes | str:
    """Return what ``file`` holds, or in a sentence why it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        return f"the credentials file {file} cannot be read: {error.strerror or error}"


def _by_key(credentials: Sequence[Credential], digest: bytes) -> Credential | None:
    """Return whose key has ``digest``; how long it takes tells nothing about which of them, or how near."""
    found = None
    for credential in credentials:
        for known in credential.key_digests:
            if hmac.compare_digest(known, digest):
                found = credential
    return found


def _by_certificate(credentials: Sequence[Credential], names: Sequence[str]) -> Credential | None:
    for name in names:
        for credential in credentials:
            if name in credential.certificate_names:
                return credential
    return None
