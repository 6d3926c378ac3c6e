"""Who asks, what they may do and how much of it, and which role each call takes."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

ROLES = ("translate", "explain", "monitor", "admin")

_ANY = frozenset(ROLES)  # a principal has one role at least, so this is: whoever is known
_TRANSLATE, _EXPLAIN, _ADMIN = frozenset({"translate"}), frozenset({"explain"}), frozenset({"admin"})

ROLE_OF: Mapping[str, frozenset[str] | None] = {
    "Translate": _TRANSLATE,
    "TranslateStream": _TRANSLATE,
    "StreamTokens": _TRANSLATE,
    "Explain": _EXPLAIN,
    "Contrast": _EXPLAIN,
    "ListAlternatives": _EXPLAIN,
    "WhatIf": _EXPLAIN,
    "ListModels": _ANY,
    "GetModel": _ANY,
    "LoadModel": _ADMIN,
    "ActivateModel": _ADMIN,
    "UnloadModel": _ADMIN,
    "/metrics": frozenset({"monitor", "admin"}),
    "/healthz": None,
    "/readyz": None,
}
"""Which roles open a call of the proto, or a path that is none: one of them is enough; None is open to everybody.

What is not named here is answered to nobody. gRPC's own health and reflection services, and the files of the explorer,
hold nothing that has to be kept from anybody and are not asked about.
"""


@dataclass(frozen=True)
class Quota:
    """How much a principal may send; None sets no limit.

    Attributes:
        characters_per_second: Code points of text, on average.
        burst_characters: Code points of text that may come at once after a pause; given with the former.
        requests_per_second: Calls, on average.
        burst_requests: Calls that may come at once after a pause; given with the former.
        concurrent: Calls that may be open at the same time.
    """

    characters_per_second: float | None = None
    burst_characters: int | None = None
    requests_per_second: float | None = None
    burst_requests: int | None = None
    concurrent: int | None = None


@dataclass(frozen=True)
class Principal:
    """Somebody the service knows.

    Attributes:
        name: What operators call them; it may stand in a log, never in a label.
        roles: Of ``ROLES``; at least one.
        quota: How much they may send.
    """

    name: str
    roles: frozenset[str]
    quota: Quota


ANYONE = Principal("anyone", _ANY, Quota())
"""Whoever comes to a service that was given no credentials file."""

asking: ContextVar[Principal] = ContextVar("asking", default=ANYONE)
"""Who makes the call that the current task is about, once the gate has let them in."""
