"""The model behind ml_search: texts as vectors of numpy. Of a server's processes only the helper imports it.

Without a server:

python examples/guides/ml_model.py 'green tee'
"""

from __future__ import annotations

import os
import sys
from itertools import count
from zlib import crc32

import numpy as np

TITLES = ("black tea", "green tea", "iced coffee", "filter coffee", "hot chocolate", "orange juice", "sparkling water")
SIZE = 512
MADE = count(1)


class Model:
    """Made once, when the server starts. What its methods take and give is plain data: no arrays."""

    def __init__(self) -> None:
        self.number = next(MADE)
        self.vectors = np.stack([vector(title) for title in TITLES])

    def search(self, text: str, most: int = 3) -> list[tuple[str, float]]:
        """The titles that are most like `text`, and how much, from 0 to 1."""
        if not text.strip():
            raise ValueError("text is empty")
        likeness = self.vectors @ vector(text)
        best = np.argsort(-likeness, kind="stable")[:most]
        return [(TITLES[at], round(float(likeness[at]), 4)) for at in best]

    def about(self) -> dict[str, object]:
        """Where it is, and the how many-th of its process."""
        return {"pid": os.getpid(), "number": self.number, "shape": list(self.vectors.shape)}


def vector(text: str) -> np.ndarray:
    """The text's trigrams, counted by their hash; of length 1."""
    counts = np.zeros(SIZE)
    padded = f"  {text.lower().strip()}  "
    for at in range(len(padded) - 2):
        counts[crc32(padded[at : at + 3].encode()) % SIZE] += 1
    return counts / np.linalg.norm(counts)


if __name__ == "__main__":
    for title, likeness in Model().search(" ".join(sys.argv[1:])):
        print(f"{likeness:.4f} {title}")
