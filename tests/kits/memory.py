"""How much of what a test had made is still held."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def allocated(*, collecting: bool = True) -> Iterator[Callable[[], int]]:
    """Within it: how many bytes have been allocated since its beginning and are in use still.

    Garbage in cycles counts if it is not ``collecting`` that.
    """
    gc.collect()
    if not collecting:
        gc.disable()
    tracemalloc.start()
    begin, _ = tracemalloc.get_traced_memory()

    def held() -> int:
        if collecting:
            gc.collect()
        return tracemalloc.get_traced_memory()[0] - begin

    try:
        yield held
    finally:
        tracemalloc.stop()
        gc.enable()
