"""Many cases, a few at the same time."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = 4  # threads; each holds one case in memory


def each(
    work: Callable[[Item], Result], items: Sequence[Item], progress: Callable[[int, int], None] | None = None
) -> list[Result]:
    """The result of each item, in the order of `items`; `progress` is told of (done, of).

    After an error or an interrupt no further item is begun; the first error is raised.
    """
    with ThreadPoolExecutor(max(1, min(WORKERS, os.cpu_count() or 1))) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                future.result()
                if progress:
                    progress(number, len(items))
        finally:
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]
