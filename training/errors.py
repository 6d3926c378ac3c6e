"""What can go wrong in training, for the person who started it.

TrainingError
├── InvalidConfig       the TOML file of the run
├── InvalidCorpus       the text it names
├── InvalidCheckpoint   a checkpoint that cannot be read or does not belong to the run
├── AlignerFailed       the program that aligns the text for guided attention
├── TrainingDiverged    losses that stay not finite
└── OutOfMemory         a batch that does not fit the device
"""


class TrainingError(Exception):
    """Something the person who started the run can mend; the message says how."""


class InvalidConfig(TrainingError):
    """The run's TOML file has an unknown key, a missing key or a value out of range."""


class InvalidCorpus(TrainingError):
    """A corpus file is missing, unreadable or empty after filtering."""


class InvalidCheckpoint(TrainingError):
    """A checkpoint folder is incomplete, damaged, or was made by another model or corpus."""


class AlignerFailed(TrainingError):
    """The aligner that guides attention is not installed, or it failed; its own words are in the message."""


class TrainingDiverged(TrainingError):
    """The loss stayed not finite; the last good checkpoint is kept."""


class OutOfMemory(TrainingError):
    """The model and a batch do not fit the device's memory."""
