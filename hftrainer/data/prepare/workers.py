"""Worker processes that end with their parent, and survive one another."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

from hftrainer.processes import die_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")
_LOOK_EVERY = 0.2  # seconds


def run_all(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, died: Callable[[Item], Result]
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, as they come; with `workers` of 1, in this process.

    A worker that dies (memory, a crash in a library) takes the others of its pool with it: what they had is tried
    again, one at a time, and the item that kills its worker again gets `died(item)`.
    """
    if workers <= 1:
        for item in items:
            yield item, work(item)
        return
    left = iter(items)
    _quieten()
    while True:
        suspects: list[Item] = []
        with _workers(workers) as pool:
            pending = {_submit(pool, work, item): item for item in islice(left, 2 * workers)}
            while pending:
                done = _next(pool, pending)
                for future in done:
                    item = pending.pop(future)
                    try:
                        yield item, future.result()
                    except BrokenProcessPool:
                        suspects.append(item)
                if not suspects:
                    for item in islice(left, len(done)):
                        pending[_submit(pool, work, item)] = item
        if not suspects:
            return
        for item in suspects:
            yield item, _alone(work, item, died)


def _alone(work: Callable[[Item], Result], item: Item, died: Callable[[Item], Result]) -> Result:
    with _workers(1) as pool:
        future: Future[Result] = _submit(pool, work, item)
        try:
            return next(iter(_next(pool, [future]))).result()
        except BrokenProcessPool:
            return died(item)


def _submit(pool: ProcessPoolExecutor, work: Callable[[Item], Result], item: Item) -> Future[Result]:
    """Give work to a pool, which may start a worker for it. Ctrl-C reaches all processes of a terminal: workers leave
    it to their parent, as theirs would be a traceback each."""
    block = getattr(signal, "pthread_sigmask", None)  # Windows has none
    before = block(signal.SIG_BLOCK, {signal.SIGINT}) if block is not None else ()
    try:
        return pool.submit(work, item)
    finally:
        if block is not None:
            block(signal.SIG_SETMASK, before)


def _next(pool: ProcessPoolExecutor, pending: Iterable[Future[Result]]) -> set[Future[Result]]:
    """Those of the futures that are done, at least one; ``MemoryError`` if none ever will be.

    A pool's thread that runs out of memory ends, and the library does not say so to anybody: its workers wait for work,
    and we would wait for them.
    """
    while True:
        thread = getattr(pool, "_executor_manager_thread", None)
        dead = thread is not None and not thread.is_alive()
        done, _ = wait(pending, timeout=_LOOK_EVERY, return_when=FIRST_COMPLETED)
        if done:
            return done
        if dead:
            _kill(pool)
            raise MemoryError("the thread that gives workers their work has ended")


def _quieten() -> None:
    """No traceback of the thread of a pool: that it ended is said by `_next`."""
    print_it = threading.excepthook

    def hook(error: threading.ExceptHookArgs) -> None:
        if not isinstance(error.exc_value, (MemoryError, RuntimeError)):
            print_it(error)

    if getattr(print_it, "__module__", "") != __name__:
        threading.excepthook = hook


@contextlib.contextmanager
def _workers(count: int) -> Iterator[ProcessPoolExecutor]:
    # spawned, not forked: a fork of a process with threads may hang
    pool = ProcessPoolExecutor(
        count, mp_context=get_context("spawn"), initializer=die_with_parent, initargs=(os.getpid(),)
    )
    try:
        yield pool
    except BaseException:
        _kill(pool)  # what they have in work is made by the next run
        raise
    finally:
        try:
            pool.shutdown()
        except RuntimeError:  # its thread never started; the error that says so is under way already
            _kill(pool)


def _kill(pool: ProcessPoolExecutor) -> None:
    for process in list((pool._processes or {}).values()):
        process.kill()
