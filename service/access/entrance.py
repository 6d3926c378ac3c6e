"""All that stands between the network and the calls: who, how much, and over what kind of connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from service.access.authority import Authority
from service.access.principals import Principal
from service.access.protection import protection_faults
from service.access.quotas import Quotas
from service.errors import InvalidSettings
from service.metrics import Metrics
from service.settings import Settings

if TYPE_CHECKING:
    from service.access.certificates import Certificates

_log = structlog.get_logger()


@dataclass(frozen=True)
class Access:
    """Who may come in, for what, and how much of it.

    Attributes:
        authority: Who a caller is, and what it may do.
        quotas: How much each may send.
        certificates: What listeners are bound with; None if they speak plain text.
    """

    authority: Authority
    quotas: Quotas
    certificates: "Certificates | None"

    @classmethod
    def of(cls, settings: Settings, metrics: Metrics) -> "Access":
        """Return what ``settings`` ask for.

        Raises:
            InvalidSettings: Strangers could come in, or a file is of no use; the message lists every fault.
        """
        faults = list(protection_faults(settings))
        authority = certificates = None
        try:
            authority = Authority(settings, metrics)
        except InvalidSettings as error:
            faults.append(str(error))
        if settings.tls_certificate is not None and settings.tls_key is not None:
            from service.access.certificates import Certificates  # takes a while to import, for those who use it

            try:
                certificates = Certificates(settings, metrics)
            except InvalidSettings as error:
                faults.append(str(error))
        if authority is None or faults:
            raise InvalidSettings("\n".join(["the service may not start as it is set up:", *faults]))
        return cls(authority, Quotas(metrics), certificates)

    def admit(self, key: str | None, certificate_names: Sequence[str], call: str) -> Principal:
        """Return who makes ``call``, a method of the proto or a path; see ``Authority`` for the arguments.

        Raises:
            Unauthenticated: Nobody that the service knows.
            PermissionDenied: Somebody who may not.
        """
        principal = self.authority.identify(key, certificate_names)
        self.authority.permit(principal, call)
        return principal

    @contextlib.asynccontextmanager
    async def watched(self, poll_seconds: float = 5.0) -> AsyncIterator[None]:
        """Read the files again whenever they change, while the context lasts."""
        watching = asyncio.create_task(self._watch(poll_seconds))
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait((watching,))

    async def _watch(self, poll_seconds: float) -> None:
        while True:
            await asyncio.sleep(poll_seconds)
            for source in (self.authority, self.certificates):
                try:
                    if source is not None:
                        await asyncio.to_thread(source.reload)  # the disk may hang; the loop must not
                except Exception:  # whatever a file did to a parser, the next one is to be read
                    _log.exception("files of access not read again")
