"""Captions as numbers: a vocabulary of words, built from the captions of the training set."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Self

import torch
from torch import Tensor

PADDING, START, UNKNOWN = 0, 1, 2
"""Ids below the words. Every caption opens with START; an empty one is START alone."""

_SPECIALS = 3
_WORD = re.compile(r"\w+|[^\w\s]")


def words_of(caption: str) -> list[str]:
    """The words and punctuation marks of ``caption``, in lower case."""
    return _WORD.findall(caption.lower())


class Vocabulary:
    """Numbers the words that a model knows; a word that it does not know is UNKNOWN."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._ids = {word: index for index, word in enumerate(self.words, start=_SPECIALS)}

    def __len__(self) -> int:
        """Number of ids, the three special ones included."""
        return len(self.words) + _SPECIALS

    @classmethod
    def build(cls, captions: Iterable[str], size: int) -> Self:
        """The most frequent words of ``captions``, ``size`` ids in all; ties go by alphabet."""
        counts = Counter(word for caption in captions for word in words_of(caption))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(ranked[: size - _SPECIALS])

    def encode(self, captions: Sequence[str], length: int) -> Tensor:
        """Ids of ``captions``, ``(B, 1 + length)``: START, then up to ``length`` words."""
        ids = torch.full((len(captions), 1 + length), PADDING, dtype=torch.long)
        ids[:, 0] = START
        for row, caption in enumerate(captions):
            found = [self._ids.get(word, UNKNOWN) for word in words_of(caption)[:length]]
            ids[row, 1 : 1 + len(found)] = torch.tensor(found, dtype=torch.long)
        return ids

    def unknown(self, caption: str) -> list[str]:
        """The words of ``caption`` that are not in the vocabulary."""
        return [word for word in words_of(caption) if word not in self._ids]
