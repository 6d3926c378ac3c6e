"""The service's certificate and the authorities of its callers' certificates, replaced without a restart.

What is read is checked whole before any of it is used: a new pair of files that do not belong together, or a
certificate that has expired, leaves the old one in force. Connections that are open stay as they are; the next
handshake has the new certificate, over gRPC and over HTTP. No session is resumed where callers have certificates: a
handshake that resumes one skips the check of a certificate that may have ended, or whose authority is trusted no more.
"""

import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from service.errors import InvalidSettings
from service.metrics import Metrics
from service.settings import Settings

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Files:
    """What the files hold, as PEM.

    Attributes:
        chain: The service's certificate first, then those that lead to its authority.
        key: Its private key.
        client_authorities: Those that sign client certificates; None if callers need none.
    """

    chain: bytes
    key: bytes
    client_authorities: bytes | None


@dataclass(frozen=True)
class _Identity:
    """What handshakes use, checked.

    Attributes:
        grpc: For gRPC.
        http: For HTTP.
        expires: Unix time at which the first certificate of the chain to expire does.
    """

    grpc: grpc.ServerCertificateConfiguration
    http: ssl.SSLContext
    expires: float


class Certificates:
    """The certificate of every listener; needs ``settings.tls_certificate``.

    Raises:
        InvalidSettings: A file cannot be read or cannot be used; the message lists every fault.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._seen: _Files | str = _read(settings)
        self._refusal = ""  # why that is not in use
        self._identity = self._checked(self._seen)
        _warn_if_readable_by_others(settings.tls_key)

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return what a gRPC port is bound with; a caller's certificate is asked for before anything else is."""
        required = self._settings.tls_client_authority is not None
        # Each handshake gets the newest, and gets it as if it were new: gRPC resumes no session across that.
        return grpc.dynamic_ssl_server_credentials(
            self._identity.grpc, lambda: self._identity.grpc, require_client_authentication=required
        )

    def ssl_context(self) -> ssl.SSLContext:
        """Return what an HTTP port is bound with.

        A caller without certificate gets through the handshake, so that probes, which have none, can be answered; the
        authority refuses it everything else. A certificate that is not from a trusted authority fails the handshake.
        """
        context = self._identity.http

        def use_newest(connection: ssl.SSLObject, name: str | None, own: ssl.SSLContext) -> None:
            # Loading into one context again would let handshakes see a new certificate beside an old key, and
            # authorities could never be taken out of it.
            connection.context = self._identity.http

        context.sni_callback = use_newest  # called for every handshake, also one that names no server
        return context

    def reload(self) -> None:
        """Read the files again; any that have become wrong change nothing but log and metrics."""
        seen, was_seen, was_refused = _read(self._settings), self._seen, self._refusal
        if seen == was_seen and not was_refused:
            return
        self._seen, self._refusal = seen, ""
        try:
            self._identity = self._checked(
                seen
            )  # what was refused may be good by now: its time comes, or a clock is set
        except InvalidSettings as error:
            self._refusal = str(error)
            if (seen, self._refusal) == (was_seen, was_refused):
                return  # told before
            self._metrics.access.certificate_reloads.labels("refused").inc()
            self._metrics.access.certificate_refused.set(1)
            _log.error("certificate not reloaded; the one read before stays in use", faults=str(error))
        else:
            self._metrics.access.certificate_reloads.labels("loaded").inc()
            self._metrics.access.certificate_refused.set(0)
            _log.info("certificate reloaded", expires=datetime.fromtimestamp(self._identity.expires, UTC).isoformat())

    def _checked(self, files: _Files | str) -> _Identity:
        """Return what handshakes use from now on.

        Raises:
            InvalidSettings: The files are of no use.
        """
        faults = [files] if isinstance(files, str) else list(_faults(files))
        if isinstance(files, str) or faults:
            raise InvalidSettings("\n  ".join(["the service's certificate cannot be used:", *faults]))
        identity = _Identity(
            grpc.ssl_server_certificate_configuration([(files.key, files.chain)], files.client_authorities),
            _context(self._settings, files.client_authorities),
            min(part.not_valid_after_utc for part in x509.load_pem_x509_certificates(files.chain)).timestamp(),
        )
        self._metrics.access.certificate_expiry.set(identity.expires)
        return identity


def _read(settings: Settings) -> _Files | str:
    """Return what the files hold, or in a sentence which of them cannot be read, and why."""
    contents: list[bytes | None] = []
    for name in ("tls_certificate", "tls_key", "tls_client_authority"):
        file: Path | None = getattr(settings, name)
        try:
            contents.append(None if file is None else file.read_bytes())
        except OSError as error:
            return f"INTERLINEAR_{name.upper()}={file}: it cannot be read: {error.strerror or error}"
    chain, key, authorities = contents
    if chain is None or key is None:
        return "INTERLINEAR_TLS_CERTIFICATE and INTERLINEAR_TLS_KEY go together; set both"
    return _Files(chain, key, authorities)


def _faults(files: _Files) -> Iterator[str]:
    """Yield what is wrong with the files, a sentence each; none repeats what they hold."""
    chain, key = _certificates(files.chain), None
    if not chain:
        yield "INTERLINEAR_TLS_CERTIFICATE: there is no certificate in it that can be read; it must be PEM"
    yield from _dates("INTERLINEAR_TLS_CERTIFICATE", chain)
    try:
        key = load_pem_private_key(files.key, password=None)
    except TypeError:
        yield "INTERLINEAR_TLS_KEY: it is encrypted; nobody is there to type a passphrase, so store it without one"
    except (ValueError, UnsupportedAlgorithm):
        yield "INTERLINEAR_TLS_KEY: there is no private key in it that can be read; it must be PEM"
    if chain and key is not None and _public(key.public_key()) != _public(chain[0].public_key()):
        yield "INTERLINEAR_TLS_KEY: it is not the key of the first certificate in INTERLINEAR_TLS_CERTIFICATE"
    if files.client_authorities is not None:
        authorities = _certificates(files.client_authorities)
        if not authorities:
            yield "INTERLINEAR_TLS_CLIENT_AUTHORITY: there is no certificate in it that can be read; it must be PEM"
        yield from _dates("INTERLINEAR_TLS_CLIENT_AUTHORITY", authorities)


def _certificates(content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        return []


def _dates(name: str, certificates: list[x509.Certificate]) -> Iterator[str]:
    now = datetime.now(UTC)
    for position, certificate in enumerate(certificates, start=1):
        if certificate.not_valid_after_utc < now:
            until = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M}"
            yield f"{name}: certificate {position} in it expired on {until} UTC"
        if certificate.not_valid_before_utc > now:
            since = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M}"
            yield f"{name}: certificate {position} in it is valid from {since} UTC; is this machine's clock right?"


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _context(settings: Settings, client_authorities: bytes | None) -> ssl.SSLContext:
    """Return what an HTTP handshake uses; OpenSSL has the last word on files that were checked already.

    Raises:
        InvalidSettings: OpenSSL will not have them.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(str(settings.tls_certificate), settings.tls_key, password="")
        if client_authorities is not None:
            context.load_verify_locations(cadata=client_authorities.decode("ascii", "ignore"))
            context.verify_mode = ssl.CERT_OPTIONAL
            context.minimum_version = ssl.TLSVersion.TLSv1_3  # the one in which a server can refuse to resume
            context.num_tickets = 0
    except (ssl.SSLError, OSError) as error:
        raise InvalidSettings(f"the service's certificate cannot be used: {error.strerror or error}") from None
    return context


def _warn_if_readable_by_others(key: Path | None) -> None:
    if key is not None and key.stat().st_mode & stat.S_IROTH:
        _log.warning("every user of this machine can read the private key; chmod o-r its file", setting="TLS_KEY")
