"""A running batch whose tensors stay on a device between steps; the host keeps who sits where.

A sentence has a slot of a pool until it leaves. What changes from step to step is small: the previous tokens, and which
row of the state each hypothesis goes on from. A slot that is free is worked on too, and nobody reads what comes of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from bundle.sessions import encoder_inputs
from bundle.step import GivenAttention, StepOutput
from service.decoder_state import Attended, Wanted
from service.device_memory import ATTENTION, Bucket, Device, Pool, Wish, bucket_for

_CANDIDATES_MULTIPLE = 8  # few widths, so that few calls are recorded
_SHRINKING = 4  # a pool is given up when a smaller one of so many times fewer slots would do


@dataclass(frozen=True)
class PendingSources:
    """Sentences to be encoded where they are put, so that nothing is copied.

    Attributes:
        source_ids: Tokens of each, end of sentence included.
    """

    source_ids: tuple[tuple[int, ...], ...]

    @property
    def source_lengths(self) -> Int[np.ndarray, "batch"]:
        """Tokens of each."""
        return np.array([len(ids) for ids in self.source_ids], np.int64)

    def keep(self, rows: Sequence[int]) -> "PendingSources":
        """Return the sentences ``rows``, in that order."""
        return PendingSources(tuple(self.source_ids[row] for row in rows))


class DeviceState:
    """The tensors of one running batch; rows are its sentences, in the order of the batch."""

    def __init__(self, device: Device, beam_size: int) -> None:
        """Make a batch of no sentences, each of those to come with ``beam_size`` hypotheses."""
        self._device, self._beam_size = device, beam_size
        self._pad = device.manifest.special_ids.pad
        self._pool: Pool | None = None
        self._half = 0  # of the state, which the next step reads
        self._slots = np.zeros(0, np.int64)  # of each row
        self._lengths = np.zeros(0, np.int64)
        self._indices = np.zeros(0, np.int64)  # as the pool takes them

    @property
    def source_lengths(self) -> Int[np.ndarray, "batch"]:
        """Tokens of each source, end of sentence included."""
        return self._lengths

    @property
    def columns(self) -> int:
        """Source positions of a row, padding included."""
        return self._pool.bucket.columns if self._pool is not None else 0

    def join(self, sources: PendingSources) -> None:
        """Encode ``sources`` and append them as the last rows."""
        if not sources.source_ids:
            return
        lengths = sources.source_lengths
        pool = self._with_room(len(lengths), int(lengths.max()))
        slots = _free_slots(self._slots, pool.bucket.slots, len(lengths))
        inputs = _widened(encoder_inputs(sources.source_ids, self._pad), pool.bucket.columns, self._pad)
        if (np.diff(slots) == 1).all():
            pool.encode(int(slots[0]), inputs, self._half)
        else:
            pool.encode_apart(slots.tolist(), inputs, self._half)
        _, rows, source_lengths = self._parts(pool)
        rows[slots] = (pool.hypotheses + slots)[:, None]
        source_lengths[slots] = lengths
        self._slots = np.concatenate([self._slots, slots])
        self._lengths = np.concatenate([self._lengths, lengths])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; with none, the pool is given back."""
        self._slots, self._lengths = self._slots[list(rows)], self._lengths[list(rows)]
        if not len(self._slots):
            self._give_back()

    def step(
        self,
        previous_token_ids: Int[np.ndarray, "batch beam"],
        wanted: Wanted,
        given: GivenAttention | None = None,
    ) -> StepOutput:
        """Read the previous tokens and go on; the answer's ``state`` is empty, as it stays on the device.

        Args:
            previous_token_ids: Token emitted last by every hypothesis.
            wanted: What to return.
            given: Attention to use instead of the model's own.
        """
        pool = self._taken_pool
        candidates = min(wanted.candidates, self._device.manifest.sizes["vocabulary"])
        wish = Wish(self._width(candidates), wanted.attention, wanted.whole_vocabulary)
        outputs = self._run(pool, previous_token_ids, wish, given)
        self._half = 1 - self._half
        _, rows, _ = self._parts(pool)
        rows[:] = np.arange(pool.hypotheses).reshape(rows.shape)
        return StepOutput(
            candidate_token_ids=outputs["candidate_token_ids"][..., :candidates],
            candidate_log_probabilities=outputs["candidate_log_probabilities"][..., :candidates],
            state={},
            attention_scores=outputs.get("attention_scores"),
            attention_weights=outputs.get("attention_weights"),
            attention_query=outputs.get("attention_query"),
            log_probabilities=outputs.get("log_probabilities"),
            emission_scores=outputs.get("emission_scores"),
        )

    def attend(self, previous_token_ids: Int[np.ndarray, "batch beam"]) -> Attended:
        """Return the attention that ``step`` would have, and stay where the batch is."""
        wish = Wish(self._width(1), attention=True, whole_vocabulary=False)
        outputs = self._run(self._taken_pool, previous_token_ids, wish, None)
        return Attended(*(outputs[name] for name in ATTENTION))

    def reorder(self, parents: Int[np.ndarray, "batch beam"]) -> None:
        """Let each hypothesis go on from the state of the hypothesis of its sentence that ``parents`` says."""
        _, rows, _ = self._parts(self._taken_pool)
        rows[self._slots] = self._slots[:, None] * self._beam_size + parents

    def attention_keys(self, row: int) -> Float[np.ndarray, "source key"]:
        """Return the keys of one source, padding removed."""
        slot, length = int(self._slots[row]), int(self._lengths[row])
        return self._taken_pool.encoder_side_of("attention_keys", slot, length)

    @property
    def _taken_pool(self) -> Pool:
        assert self._pool is not None, "no sentence has joined"
        return self._pool

    def _width(self, candidates: int) -> int:
        rounded = -(-candidates // _CANDIDATES_MULTIPLE) * _CANDIDATES_MULTIPLE
        return min(rounded, self._device.manifest.sizes["vocabulary"])

    def _run(
        self,
        pool: Pool,
        previous_token_ids: Int[np.ndarray, "batch beam"],
        wish: Wish,
        given: GivenAttention | None,
    ) -> dict[str, np.ndarray]:
        previous, _, _ = self._parts(pool)
        previous[self._slots] = previous_token_ids
        inputs = None
        if given is not None:
            inputs = {name: self._spread(array, pool) for name, array in given.graph_inputs.items()}
        outputs = pool.step(self._indices, self._half, wish, inputs)
        return {name: array[self._slots] for name, array in outputs.items()}

    def _spread(self, array: np.ndarray, pool: Pool) -> np.ndarray:
        """Return rows of the batch where the pool has them, columns filled up with zeros where they are source's."""
        columns = array.shape[2] if array.shape[2] == 1 else pool.bucket.columns
        spread = np.zeros((pool.bucket.slots, self._beam_size, columns), array.dtype)
        spread[self._slots, :, : array.shape[2]] = array
        return spread

    def _parts(self, pool: Pool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return previous tokens and rows of the state ``[slots beam]``, and lengths ``[slots]``, of one array."""
        shape = pool.bucket.slots, self._beam_size
        previous, rows, lengths = np.split(self._indices, [pool.hypotheses, 2 * pool.hypotheses])
        return previous.reshape(shape), rows.reshape(shape), lengths

    def _with_room(self, sentences: int, longest: int) -> Pool:
        """Return the pool after making room in it for more, by moving to another one where need be."""
        wanted = bucket_for(self._beam_size, len(self._slots) + sentences, max([longest, *self._lengths.tolist()]))
        if self._pool is not None:
            slots, columns = self._pool.bucket.slots, self._pool.bucket.columns
            enough = slots >= wanted.slots and columns >= wanted.columns
            if enough and slots < wanted.slots * _SHRINKING:
                return self._pool
        return self._move(wanted)

    def _move(self, bucket: Bucket) -> Pool:
        """Take a pool of another bucket, and along with it what the sentences have so far, by way of the host."""
        old, slots = self._pool, self._slots
        idle = self._device.idle[bucket]
        new = idle.pop() if idle else Pool(self._device, bucket)
        arrays: dict[str, np.ndarray] = {}
        if old is not None and len(slots):
            rows = self._parts(old)[1][slots].reshape(-1)
            columns = min(old.bucket.columns, bucket.columns)
            for name, array in old.copied(self._half).items():
                if name in old.encoder_side:
                    arrays[name] = np.zeros((len(slots), bucket.columns, *array.shape[2:]), array.dtype)
                    arrays[name][:, :columns] = array[slots, :columns]
                else:
                    arrays[name] = array[rows]
        self._give_back()
        self._pool, self._slots = new, np.arange(len(slots))
        self._indices = np.zeros(2 * new.hypotheses + bucket.slots, np.int64)
        _, rows, lengths = self._parts(new)
        rows[:] = np.arange(new.hypotheses).reshape(rows.shape)
        lengths[:] = 1  # of a free slot
        lengths[: len(slots)] = self._lengths
        new.fill(arrays)
        return new

    def _give_back(self) -> None:
        if self._pool is not None:
            self._device.idle[self._pool.bucket].append(self._pool)
        self._pool, self._half = None, 0


def _free_slots(taken: Int[np.ndarray, "taken"], slots: int, wanted: int) -> Int[np.ndarray, "wanted"]:
    """Return ``wanted`` free slots, side by side where there are so many."""
    free = np.setdiff1d(np.arange(slots), taken)
    side_by_side = np.flatnonzero(free[wanted - 1 :] - free[: len(free) - wanted + 1] == wanted - 1)
    start = int(side_by_side[0]) if len(side_by_side) else 0
    return free[start : start + wanted]


def _widened(inputs: dict[str, Int[np.ndarray, "..."]], columns: int, pad: int) -> dict[str, Int[np.ndarray, "..."]]:
    """Return inputs of the encoder with so many columns, filled up with padding."""
    source_ids = np.full((len(inputs["source_ids"]), columns), pad, np.int64)
    source_ids[:, : inputs["source_ids"].shape[1]] = inputs["source_ids"]
    return inputs | {"source_ids": source_ids}
