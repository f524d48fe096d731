"""Tells of samples that turn out to be damaged while a run reads them."""

from itertools import chain

from st_trainer.data.samples import Samples
from st_trainer.journal import Journal
from st_trainer.ranks import Ranks


def tell_damaged(samples: Samples, ranks: Ranks, journal: Journal) -> None:
    """Name the samples that any rank has found to be damaged since this was called last."""
    for text in dict.fromkeys(chain.from_iterable(ranks.gather(samples.newly_damaged()))):
        journal.log(f"left out {text}", "warning")
