"""Guided attention: an aligner reads the training text, and attention is taught to look where it links.

The loss of a batch gains ``weight`` times the cross-entropy between the links of a target token, shared out evenly, and
its attention weights (Chen et al. 2016, arXiv 1607.01628). Row s is taught: the step that emits token s. The aligner is
eflomal (Östling and Tiedemann 2016), run as a program of its own on the pieces that the model reads. Kept are the links
that it finds in both directions and, for target tokens left without, those of the direction in which every source token
has at most one; tokens without any are not taught.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.config import GuidanceConfig
from training.corpus import Links, TokenizedCorpus
from training.errors import AlignerFailed
from training.progress import Reporter

LINKS_FILE = "links.safetensors"
_BITS = 16  # of a position, in the one number that stands for a link


def with_links(
    corpora: Sequence[TokenizedCorpus], guidance: GuidanceConfig, folder: Path, reporter: Reporter
) -> list[TokenizedCorpus]:
    """Return ``corpora`` with the links of their first ``guidance.pairs`` pairs.

    They are kept in ``folder`` and read from there when the text is the same.

    Raises:
        AlignerFailed: The aligner is not installed, or it failed.
    """
    kept = [min(len(corpus), guidance.pairs) for corpus in corpora]
    digest = hashlib.sha256(repr(kept).encode())
    for corpus in corpora:
        digest.update(corpus.source_ids.tobytes())
        digest.update(corpus.target_ids.tobytes())
    file = folder / f"{digest.hexdigest()[:16]}-{LINKS_FILE}"
    if not file.exists():
        reporter.say(f"aligning {sum(kept):,} pairs")
        folder.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file({"links": _align(corpora, kept)}, file)
    links = safetensors.numpy.load_file(file)["links"]
    reporter.say(f"{len(links):,} links guide the attention of {sum(kept):,} pairs")
    begins = np.cumsum([0, *kept])
    return [
        replace(corpus, links=_of_corpus(links, begins[index], begins[index + 1], len(corpus)))
        for index, corpus in enumerate(corpora)
    ]


def guidance_loss(weights: Float[Tensor, "batch target source"], links: Int[Tensor, "links 3"]) -> Tensor:
    """Return the cross-entropy (nats, mean over linked target tokens) of attention from evenly shared links; 0 without.

    Args:
        weights: Attention weights.
        links: (row, target position, source position).
    """
    if not len(links):
        return weights.new_zeros(())
    row, target, source = links.unbind(1)
    counts = weights.new_zeros(weights.shape[:2])
    counts.index_put_((row, target), weights.new_ones(len(links)), accumulate=True)
    surprise = -torch.log(weights[row, target, source].float().clamp_min(torch.finfo(torch.float32).tiny))
    return (surprise / counts[row, target]).sum() / (counts > 0).sum()


def _of_corpus(links: Int[np.ndarray, "links 3"], begin: int, end: int, pairs: int) -> Links:
    """Return the links of the pairs [begin, end) of all those aligned, as the first of ``pairs``."""
    first, last = np.searchsorted(links[:, 0], (begin, end))
    offsets = np.searchsorted(links[first:last, 0], begin + np.arange(pairs + 1))
    return Links(links[first:last, 1], links[first:last, 2], offsets)


def _align(corpora: Sequence[TokenizedCorpus], pairs: Sequence[int]) -> Int[np.ndarray, "links 3"]:
    """Return (pair, target position, source position) of the first ``pairs`` of each corpus, in order."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = list(zip(corpora, pairs, strict=True))
        _write(folder / "source", [(corpus.source_ids, corpus.source_offsets[: n + 1]) for corpus, n in chosen])
        _write(folder / "target", [(corpus.target_ids, corpus.target_offsets[: n + 1]) for corpus, n in chosen])
        files = {"-s": "source", "-t": "target", "-f": "forward", "-r": "reverse"}
        _run([_aligner(), *(str(part) for flag, file in files.items() for part in (flag, folder / file))])
        forward, reverse = (_read(folder / direction) for direction in ("forward", "reverse"))
    return _positions(combined(forward, reverse))


def combined(forward: Int[np.ndarray, "links"], reverse: Int[np.ndarray, "links"]) -> Int[np.ndarray, "links"]:
    """Return the links found in both directions, and those of ``reverse`` for target tokens that would have none.

    A link is one number; what is left of it after its lowest 16 bits is its pair and target position.
    """
    both = np.intersect1d(forward, reverse)
    return np.union1d(both, reverse[~np.isin(reverse >> _BITS, both >> _BITS)])


def _positions(links: Int[np.ndarray, "links"]) -> Int[np.ndarray, "links 3"]:
    mask = (1 << _BITS) - 1
    return np.stack([links >> 2 * _BITS, links >> _BITS & mask, links & mask], axis=1)


def _write(file: Path, corpora: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write sentences as lines of token numbers."""
    with file.open("w") as lines:
        for token_ids, offsets in corpora:
            words = list(map(str, token_ids[: offsets[-1]].tolist()))
            lines.writelines(" ".join(words[a:b]) + "\n" for a, b in zip(offsets, offsets[1:], strict=False))


def _read(file: Path) -> Int[np.ndarray, "links"]:
    with file.open() as lines:
        found = [
            (pair << _BITS | int(target)) << _BITS | int(source)
            for pair, line in enumerate(lines)
            for source, _, target in (link.partition("-") for link in line.split())
        ]
    return np.unique(np.array(found, np.int64))


def _found_aligner() -> str | None:
    return shutil.which("eflomal-align", path=str(Path(sys.executable).parent)) or shutil.which("eflomal-align")


def _aligner() -> str:
    program = _found_aligner()
    if program is None:
        raise AlignerFailed(
            "[guidance] needs the aligner eflomal, which is not installed. Install interlinear[guidance] (it takes a C "
            "compiler), or remove [guidance] from the run."
        )
    return program


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise AlignerFailed(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
