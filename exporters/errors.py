"""What can go wrong between a checkpoint and a bundle.

ExportError
├── InvalidExportOptions   what was asked for contradicts itself or the checkpoint
└── ExportRefused          the graphs do not do what the model does; every reason is listed
"""

from collections.abc import Sequence


class ExportError(Exception):
    """The root of this package's errors; the message says what to do."""


class InvalidExportOptions(ExportError):
    """What was asked for contradicts itself, or text that it needs is missing."""


class ExportRefused(ExportError):
    """The bundle failed its own parity ledger, so none was written.

    Attributes:
        reasons: One sentence a failed check, with the value found and the value allowed.
    """

    def __init__(self, reasons: Sequence[str]) -> None:
        """Compose the message from ``reasons``."""
        self.reasons = tuple(reasons)
        lines = "".join(f"\n  - {reason}" for reason in self.reasons)
        super().__init__(f"no bundle was written, {len(self.reasons)} check(s) failed:{lines}")
