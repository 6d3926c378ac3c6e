"""Every error that reading or using a bundle can raise on purpose.

```
BundleError
├── InvalidBundle          the folder is not a whole, unedited bundle of a format this code reads
├── UnsafeFile             a file is not plain, too large, or cannot be read
├── InvalidText            the text is not valid Unicode
├── InvalidGold            a file of gold alignments cannot be read
├── InvalidSearchOptions   a beam search was asked for something it cannot do
└── TableMismatch          component tables do not fit the states, or are damaged
```
"""

from collections.abc import Sequence
from pathlib import Path


class BundleError(Exception):
    """The root of this package's errors."""


class InvalidBundle(BundleError):
    """A bundle that must not be used; the message lists every fault found, not only the first.

    Attributes:
        faults: One sentence a fault.
    """

    def __init__(self, folder: Path, faults: Sequence[str]) -> None:
        """Compose the message from ``faults`` found in ``folder``."""
        self.folder = folder
        self.faults = tuple(faults)
        lines = "".join(f"\n  - {fault}" for fault in self.faults)
        super().__init__(f"{folder} is not a usable bundle, {len(self.faults)} fault(s):{lines}")


class UnsafeFile(BundleError):
    """A file that is not read: a link, a pipe or a device, one that is too large, or one that the system refuses."""


class InvalidText(BundleError, ValueError):
    """Text that is not valid Unicode, such as a lone surrogate, or that holds a NUL character."""


class InvalidGold(BundleError, ValueError):
    """A file of gold alignments that cannot be read; the message names the file and the line."""


class InvalidSearchOptions(BundleError, ValueError):
    """Search options out of range or contradicting each other; the message lists every fault."""


class TableMismatch(BundleError, ValueError):
    """Component tables that were fitted on something else, or are damaged."""
