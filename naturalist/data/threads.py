"""Work that threads do ahead of whoever takes its results."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
Result = TypeVar("Result")


def in_order(pool: Executor, function: Callable[[T], Result], items: Iterable[T], ahead: int) -> Iterator[Result]:
    """Results for ``items`` in their order, of which at most ``ahead`` are there or being made at once.

    What a thread raises is raised when the result's turn comes. However the iterator ends, the pool is shut down:
    nothing is begun any more, and what is under way is waited for.
    """
    coming, waiting = iter(items), deque[Future[Result]]()
    try:
        waiting.extend(pool.submit(function, item) for item in itertools.islice(coming, ahead))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in itertools.islice(coming, 1))
    finally:
        pool.shutdown(cancel_futures=True)
