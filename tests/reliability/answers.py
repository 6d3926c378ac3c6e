"""What came of a call, and whether it is right: the same bits as an idle service gave, or a refusal by its own name."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from service import errors
from service.pb import interlinear_pb2 as pb
from service.status import TRANSIENT
from tests.reliability.process import ROOT

Verdict: TypeAlias = Literal["right", "refused", "late", "gone", "lost", "stuck", "wrong"]

NO_ANSWER = "NO_ANSWER"  # in place of a code: the caller gave up waiting

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_TABLE_ROW = re.compile(r"\| `([A-Z_]+)` \| `([A-Z_]+)` \| (\d{3}|–) \|")
_VOLATILE = {"timings", "batch_size", "cached", "metadata"}  # fields that differ between equal answers


@dataclass(frozen=True)
class Outcome:
    """What came of one call.

    Attributes:
        code: Name of the gRPC code, also of a call over HTTP, or ``NO_ANSWER``.
        reason: ErrorInfo's; of a call that was answered, that of a part that was refused for a passing reason, if any.
        answer: Reply without what differs between equal answers.
        digest: Of the model that answered.
        seconds: It took.
    """

    code: str
    reason: str = ""
    answer: bytes = b""
    digest: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Documented:
    """What docs/api.md says of a reason.

    Attributes:
        code: Name of the gRPC code.
        http_status: In digits; a dash where it cannot be met over HTTP.
    """

    code: str
    http_status: str


def documented() -> dict[str, Documented]:
    """Return the error table of docs/api.md by reason."""
    rows = _TABLE_ROW.findall((ROOT / "docs" / "api.md").read_text(encoding="utf-8"))
    return {reason: Documented(code, status) for reason, code, status in rows}


@functools.cache
def passing_reasons() -> frozenset[str]:
    """Return the reasons for which a service may refuse what it would answer at another time."""

    def below(kind: type[errors.ServiceError]) -> frozenset[str]:
        return frozenset({kind.reason}).union(*(below(child) for child in kind.__subclasses__()))

    return frozenset().union(*(below(kind) for kind in TRANSIENT))


def answered(replies: Sequence[Message], seconds: float) -> Outcome:
    """Return the outcome of a call that was answered with ``replies``, which are changed."""
    digest = next((reply.metadata.model_digest for reply in replies if hasattr(reply, "metadata")), "")
    if hasattr(replies[-1], "end"):
        digest = replies[-1].end.metadata.model_digest
    if isinstance(replies[-1], pb.StreamTokensResponse):  # how a text is cut into messages is not part of the answer
        digest, whole = replies[-1].metadata.model_digest, "".join(reply.text for reply in replies)
        replies = [replies[-1]]
        replies[0].text = whole
    reason = next((reason for reply in replies for reason in _refused_parts(reply)), "")
    for reply in replies:
        _clear(reply)
    parts = (reply.SerializeToString(deterministic=True) for reply in replies)
    return Outcome("OK", reason, b"\0".join(parts), digest, seconds)


def refused(status: status_pb2.Status, seconds: float) -> Outcome:
    """Return the outcome of a call that was refused with ``status``."""
    return Outcome(_CODES.get(status.code, str(status.code)), reason_of(status), seconds=seconds)


def reason_of(status: status_pb2.Status) -> str:
    """Return ErrorInfo's reason; empty where there is none."""
    info = error_details_pb2.ErrorInfo()
    return info.reason if any(detail.Unpack(info) for detail in status.details) else ""


class Judge:
    """Knows the right answers of an idle service and compares others with them."""

    def __init__(self) -> None:
        self._documented = documented()
        self._passing = passing_reasons()
        self._right: dict[tuple[int, str], Outcome] = {}

    def learn(self, question: int, outcome: Outcome) -> None:
        """Take ``outcome`` for the right one of that question and model.

        Raises:
            ValueError: It cannot be: a service that has nothing else to do fails no call, and puts none off.
        """
        failed = outcome.reason in self._passing or outcome.code == "INTERNAL"
        if failed or (outcome.code != "OK" and not self.is_known(outcome.reason, outcome.code)):
            raise ValueError(f"the idle service answered {outcome.code} {outcome.reason}")
        self._right[question, outcome.digest] = outcome

    def equate(self, digest: str, new_digest: str) -> None:
        """Expect the answers of one model from another one too."""
        for (question, known), outcome in list(self._right.items()):
            if known == digest:
                self._right[question, new_digest] = outcome

    def is_known(self, reason: str, code: str) -> bool:
        """Return whether docs/api.md has that reason with that code."""
        return reason in self._documented and self._documented[reason].code == code

    def judge(self, question: int, outcome: Outcome) -> Verdict:
        """Return what to think of the outcome of a call whose caller waited for it."""
        right = self._right.get((question, outcome.digest))
        if outcome.code == NO_ANSWER:
            return "stuck"
        if outcome.code == "OK":
            if outcome.reason:
                return "refused"
            return "right" if right is not None and outcome.answer == right.answer else "wrong"
        if not self.is_known(outcome.reason, outcome.code):
            return "late" if outcome.code == "DEADLINE_EXCEEDED" else "lost"
        if right is not None and outcome.reason == right.reason:
            return "right"
        return "refused" if outcome.reason in self._passing else "wrong"


def _refused_parts(message: Message) -> list[str]:
    """Return the passing reasons for which parts of an answer are missing."""
    results = [*getattr(message, "results", ()), *([message.sentence] if hasattr(message, "sentence") else [])]
    reasons = [reason_of(result.error) for result in results if result.HasField("error")]
    return [reason for reason in reasons if reason in passing_reasons()]


def _clear(message: Message) -> None:
    """Remove from ``message`` what differs between equal answers."""
    for field, value in message.ListFields():
        if field.name in _VOLATILE:
            message.ClearField(field.name)
        elif field.message_type is not None and _has_volatile(field.message_type):
            for part in value if field.is_repeated else [value]:
                _clear(part)


@functools.cache
def _has_volatile(kind: Descriptor) -> bool:
    below = (field.message_type for field in kind.fields if field.message_type is not None)
    return any(field.name in _VOLATILE for field in kind.fields) or any(map(_has_volatile, below))
