"""Whether the settings would let strangers in; such a service does not start unless it was told to."""

import ipaddress

from service.settings import Settings, split_address

_LISTENERS = ("grpc_address", "http_address", "admin_grpc_address", "admin_http_address")


def protection_faults(settings: Settings) -> tuple[str, ...]:
    """Return what is wrong with the protection that ``settings`` ask for, a sentence each."""
    faults = []
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        faults.append("INTERLINEAR_TLS_CERTIFICATE and INTERLINEAR_TLS_KEY go together; set both, or none")
    if settings.tls_client_authority is not None and settings.tls_certificate is None:
        faults.append("INTERLINEAR_TLS_CLIENT_AUTHORITY needs INTERLINEAR_TLS_CERTIFICATE and INTERLINEAR_TLS_KEY too")
    if settings.allow_unprotected:
        return tuple(faults)
    lacking = []
    if settings.tls_certificate is None:
        lacking.append("TLS (INTERLINEAR_TLS_CERTIFICATE and INTERLINEAR_TLS_KEY)")
    if settings.credentials is None and settings.tls_client_authority is None:
        lacking.append("credentials (INTERLINEAR_CREDENTIALS, or INTERLINEAR_TLS_CLIENT_AUTHORITY)")
    public = [name for name in _LISTENERS if not _is_private(getattr(settings, name))]
    if lacking and public:
        addresses = ", ".join(f"INTERLINEAR_{name.upper()}={getattr(settings, name)}" for name in public)
        faults.append(
            f"{addresses}: other machines can reach it, and there is no {' and no '.join(lacking)}; set what is "
            "missing, listen on 127.0.0.1, or set INTERLINEAR_ALLOW_UNPROTECTED=true where something else keeps "
            "strangers out"
        )
    return tuple(faults)


def _is_private(address: str) -> bool:
    """Return whether nothing but this machine reaches ``address``; a name that is not localhost may mean anything."""
    if address == "off":
        return True
    host, _ = split_address(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
