"""The credentials file: TOML, one ``[[principal]]`` for each that may come in; keys stand in it only as SHA-256.

A key is 256 random bits, so nobody can guess it from its hash, and a slow hash, which passwords need, would only slow
down every call. No fault repeats a value of the file: somebody may have written a key where its hash belongs.
"""

import hashlib
import math
import re
import secrets
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from service.access.principals import ROLES, Principal, Quota
from service.errors import InvalidSettings

KEY_PREFIX = "ilk_"  # so that scanners of repositories and logs can tell a key from noise
_KEY_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Credential:
    """A principal and what it is known by.

    Attributes:
        principal: Who.
        key_digests: SHA-256 of each of its keys, 32 bytes.
        certificate_names: Common names or alternative names of its client certificates.
        expires: Last day, in UTC, on which it may come in; None if there is none.
    """

    principal: Principal
    key_digests: tuple[bytes, ...]
    certificate_names: tuple[str, ...]
    expires: date | None

    @property
    def expiry_timestamp(self) -> float:
        """Unix time of the end of its last day."""
        if self.expires is None:
            return math.inf
        return datetime(self.expires.year, self.expires.month, self.expires.day, tzinfo=UTC).timestamp() + _DAY_SECONDS


def new_key() -> str:
    """Return a new API key."""
    return KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


def key_digest(key: str) -> bytes:
    """Return the SHA-256 of a key, whatever characters somebody sends as one."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def parse_credentials(content: bytes, name: str) -> tuple[Credential, ...]:
    """Return what a credentials file says.

    Args:
        content: Of the file.
        name: What the message calls it.

    Raises:
        InvalidSettings: It is not one; the message lists every fault.
    """
    try:
        document = tomllib.loads(content.decode())
        entries = _File.model_validate(document).principal
    except UnicodeDecodeError as error:
        raise _refused(name, [f"it is not UTF-8 at byte {error.start}"]) from None
    except tomllib.TOMLDecodeError as error:
        raise _refused(name, [f"it is not TOML: {error}"]) from None
    except RecursionError:
        raise _refused(name, ["it is nested too deeply to be read"]) from None
    except ValidationError as error:
        raise _refused(name, [_sentence(document, fault) for fault in error.errors()]) from None
    if faults := list(_repetitions(entries)):
        raise _refused(name, faults)
    return tuple(_credential(entry) for entry in entries)


def _check_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError("write up to 64 letters, digits, '.', '_', '@' or '-', beginning with a letter or digit")
    return name


def _check_role(role: str) -> str:
    if role not in ROLES:
        raise ValueError(f"there is no such role; there are {', '.join(ROLES)}")
    return role


def _check_hash(digest: str) -> str:
    if digest.startswith(KEY_PREFIX):
        raise ValueError("this is a key and not its SHA-256; take it out, and make another with `interlinear keys new`")
    if _HASH.fullmatch(digest) is None:
        raise ValueError("a SHA-256 has 64 digits, 0 to 9 and a to f; `interlinear keys new` prints it")
    return digest


_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class _QuotaTable(_Table):
    characters_per_second: _Rate | None = None
    burst_characters: _Count | None = None
    requests_per_second: _Rate | None = None
    burst_requests: _Count | None = None
    concurrent: _Count | None = None

    @model_validator(mode="after")
    def _check_pairs(self) -> "_QuotaTable":
        for kind in ("characters", "requests"):
            if (getattr(self, f"{kind}_per_second") is None) != (getattr(self, f"burst_{kind}") is None):
                raise ValueError(
                    f"{kind}_per_second and burst_{kind} go together: the average, and what may come at once"
                )
        return self


class _PrincipalTable(_Table):
    name: Annotated[str, AfterValidator(_check_name)]
    roles: Annotated[list[Annotated[str, AfterValidator(_check_role)]], Field(min_length=1)]
    key_sha256: list[Annotated[str, AfterValidator(_check_hash)]] = []
    certificate: list[Annotated[str, Field(min_length=1)]] = []
    expires: date | None = None
    quota: _QuotaTable = _QuotaTable()

    @model_validator(mode="after")
    def _check_known_by_something(self) -> "_PrincipalTable":
        if not self.key_sha256 and not self.certificate:
            raise ValueError("it has neither key_sha256 nor certificate, so nobody could come in as this principal")
        return self


class _File(_Table):
    principal: Annotated[list[_PrincipalTable], Field(min_length=1)]


def _repetitions(entries: Sequence[_PrincipalTable]) -> Iterator[str]:
    """Yield what stands in the file twice and would make it uncertain who somebody is."""
    for what, values in (
        ("name", [(entry.name, entry.name) for entry in entries]),
        ("key_sha256", [(digest, entry.name) for entry in entries for digest in entry.key_sha256]),
        ("certificate", [(name, entry.name) for entry in entries for name in entry.certificate]),
    ):
        owners: dict[str, str] = {}
        for value, owner in values:
            if value in owners:
                yield f"the same {what} stands there twice: for {owners[value]!r} and for {owner!r}"
            owners[value] = owner


def _credential(entry: _PrincipalTable) -> Credential:
    return Credential(
        Principal(entry.name, frozenset(entry.roles), Quota(**entry.quota.model_dump())),
        tuple(map(bytes.fromhex, entry.key_sha256)),
        tuple(entry.certificate),
        entry.expires,
    )


def _sentence(document: Any, fault: ErrorDetails) -> str:
    """Return a fault that pydantic found as a sentence: whose it is, which field, what is wrong."""
    location, message = fault["loc"], fault["msg"].removeprefix("Value error, ")
    if location == ("principal",):
        return "there is no [[principal]]; write one for each that may come in"
    if len(location) == 1:
        return f"{location[0]}: it stands outside of every [[principal]]"
    index, fields = int(location[1]), location[2:]
    if fault["type"] == "extra_forbidden":
        known = _QuotaTable if fields[0] == "quota" else _PrincipalTable
        message = f"there is no such field; there are {', '.join(known.model_fields)}"
    entry = document["principal"][index]
    name = entry.get("name") if isinstance(entry, dict) else None
    shown = f" ({name!r})" if isinstance(name, str) and _NAME.fullmatch(name) else ""
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fields).removeprefix(".")
    return f"principal {index + 1}{shown}: {field + ': ' if field else ''}{message}"


def _refused(name: str, faults: Sequence[str]) -> InvalidSettings:
    return InvalidSettings("\n  ".join([f"{name} is wrong:", *faults]))
