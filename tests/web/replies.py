"""What the service says, asked without the page; and a twin of what the page computes of it."""

import itertools
import json
from typing import Any

import httpx
import numpy as np
from playwright.sync_api import Request

COMPONENTS = ("temporal", "input_driven", "delta")


def ask(origin: str, call: str, **request: object) -> Any:
    response = httpx.post(f"{origin}/v1/{call}", json=request, timeout=60)
    response.raise_for_status()
    return response.json()


def matrix(message: Any) -> np.ndarray:
    values: np.ndarray = np.array(message["values"], np.float64).reshape(message["rows"], message["columns"])
    return values


def terms_of(reply: Any) -> dict[tuple[str, str], np.ndarray]:
    keys = itertools.product(COMPONENTS, COMPONENTS)
    return {key: matrix(term["contribution"]) for key, term in zip(keys, reply["decomposition"]["terms"], strict=True)}


def links_of(reply: Any) -> list[tuple[int, int]]:
    links = reply["hypothesis"]["alignment"].get("links", [])
    return [(link.get("targetIndex", 0), link.get("sourceIndex", 0)) for link in links]


def evidence_of(hypothesis: Any) -> np.ndarray:
    """Return the word weights that links were drawn from."""
    alignment = hypothesis["alignment"]
    return matrix(alignment.get("posteriorWordWeights", alignment["wordWeights"]))


def rows_of(reply: Any) -> list[list[int]]:
    return [word["pieceIndices"] for word in reply["hypothesis"]["target"]["words"]]


def by_words(reply: Any, values: np.ndarray) -> np.ndarray:
    """Return the means over words, a row and a column for the end of sentence."""
    columns = [word["pieceIndices"] for word in reply["source"]["words"]]
    taken = set(itertools.chain(*columns))
    columns.append([column for column in range(values.shape[1]) if column not in taken])
    rows = rows_of(reply)
    if len(values) > len(reply["hypothesis"]["target"]["pieces"]):
        rows = [*rows, [len(values) - 1]]
    return np.array([[values[np.ix_(row, column)].mean() for column in columns] for row in rows])


def shares_of(reply: Any, rows: list[int]) -> np.ndarray:
    """Return the nine softmax-aware shares over some rows, from the terms: docs/decomposition.md, equation 13."""
    centered = np.array([term - term.mean(axis=1, keepdims=True) for term in terms_of(reply).values()])[:, rows]
    whole = centered.sum(axis=0)
    shares: np.ndarray = (centered * whole).sum(axis=(1, 2)) / (whole**2).sum()
    return shares


def posted(request: Request) -> Any:
    """Return the body of a request that the page sent."""
    return json.loads(request.post_data or "null")
