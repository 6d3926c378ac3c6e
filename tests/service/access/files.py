"""Credentials files and certificates for the tests of access."""

import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


def entry(name: str, roles: str = '"translate"', key: str | None = None, **fields: str) -> str:
    """Return the TOML of a principal; ``fields`` as they stand right of the equals sign, ``quota_`` for ``quota.``."""
    lines = ["[[principal]]", f'name = "{name}"', f"roles = [{roles}]"]
    if key is not None:
        lines.append(f'key_sha256 = ["{hashlib.sha256(key.encode()).hexdigest()}"]')
    lines += [f"{field.replace('quota_', 'quota.')} = {value}" for field, value in fields.items()]
    return "\n".join([*lines, ""])


@dataclass(frozen=True)
class TlsFiles:
    """Certificate, key and client authority of a service, as files.

    Attributes:
        certificate: Chain of the service, PEM.
        key: Its key, PEM.
        client_authority: Who signs clients' certificates, PEM.
    """

    certificate: Path
    key: Path
    client_authority: Path

    @property
    def settings(self) -> Mapping[str, Path]:
        """The settings that name them."""
        return {
            "tls_certificate": self.certificate,
            "tls_key": self.key,
            "tls_client_authority": self.client_authority,
        }


def write_tls(folder: Path, server: trustme.LeafCert, clients: trustme.CA) -> TlsFiles:
    """Write the files of a service into ``folder``; those that are there are overwritten."""
    files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "clients.crt")
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    files.key.write_bytes(server.private_key_pem.bytes())
    files.key.chmod(0o600)
    clients.cert_pem.write_to_path(str(files.client_authority))
    return files


def issued(authority: trustme.CA, name: str, days: float = 30.0) -> trustme.LeafCert:
    """Return a certificate for ``name``, as common name and alternative name, that is good for ``days`` from now on."""
    now = datetime.now(UTC)
    begins, ends = min(now, now + timedelta(days=days)) - timedelta(days=1), now + timedelta(days=days)
    return authority.issue_cert(name, common_name=name, not_before=begins, not_after=ends)


def trusting(authority: trustme.CA, client: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """Return what a client needs that trusts ``authority`` and has a certificate, or none."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if client is not None:
        client.configure_cert(context)
    return context
