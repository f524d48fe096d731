"""Samples, checkpoints and results to the store, in the order in which the journal names them."""

import asyncio
import hashlib
from collections.abc import Iterable, Iterator
from itertools import batched
