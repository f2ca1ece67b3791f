"""Put requests to a judge, resumably: what the ledger already holds is not asked again.

The module owns the running of judgements (inline for a judge that costs nothing, on a bounded pool
of threads for one behind a network) and the promise that whatever was answered is on disk,
however the run ends.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from tqdm import tqdm

from jaxmodpo.judging.judge import Judge, Request
from jaxmodpo.judging.ledger import Ledger, Vote, request_key

log = logging.getLogger(__name__)

_BATCH = 1024


def collect(
    requests: Iterable[Request],
    judge: Judge,
    ledger: Ledger,
    *,
    max_concurrency: int,
    label: str,
    total: int | None = None,
) -> list[Vote]:
    """Ask every request without a valid vote in the ledger; return one vote per request, in their order.

    A judge that costs is asked on ``max_concurrency`` threads, never more than that many requests
    ahead, and each vote is synced before it counts; a free judge is asked inline and its votes are
    synced in batches. Once all are answered, the ledger's file is rewritten in the order of the requests, so
    that it is the same byte for byte however often the run was interrupted. Failed votes are
    returned and counted like the others; running again asks them again.

    Args:
        requests: may be a generator; it is read once, as fast as answers come.
        judge: the judge.
        ledger: where votes are kept.
        max_concurrency: how many requests may be under way at once.
        label: of the progress bar and the log.
        total: how many requests there are, for the progress bar.

    Raises:
        ValueError: a request shows two responses with one id.
        UserError: the judge found that no request of this run can succeed.
    """
    keys: list[str] = []
    with tqdm(total=total, desc=label, unit="vote", disable=None) as bar:
        unanswered = _unanswered(requests, judge.identity, ledger, keys, bar)
        if judge.costs:
            _ask_concurrently(unanswered, judge, ledger, max_concurrency, bar)
        else:
            _ask_inline(unanswered, judge, ledger, bar)
    ledger.arrange(keys)
    votes = [vote for key in keys if (vote := ledger.latest(key)) is not None]
    assert len(votes) == len(keys)
    failed = Counter(vote.status for vote in votes if vote.status != "valid")
    if failed:
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(failed.items()))
        log.warning("%s: %d of %d votes failed (%s)", label, failed.total(), len(votes), statuses)
    return votes


def _unanswered(
    requests: Iterable[Request], identity: str, ledger: Ledger, keys: list[str], bar: tqdm
) -> Iterator[tuple[str, Request]]:
    """Yield what must be asked, each key once, and write every request's key down in ``keys``."""
    asked: set[str] = set()
    for request in requests:
        if len({r.response_id for r in request.responses}) < len(request.responses):
            raise ValueError(f"question {request.question_id}: two shown responses have the same id")
        key = request_key(request, identity)
        keys.append(key)
        if ledger.valid(key) is not None or key in asked:
            bar.update()
            continue
        asked.add(key)
        yield key, request


def _ask_inline(unanswered: Iterable[tuple[str, Request]], judge: Judge, ledger: Ledger, bar: tqdm) -> None:
    batch: list[Vote] = []
    try:
        for key, request in unanswered:
            batch.append(Vote.of(key, request, judge.answer(request)))
            bar.update()
            if len(batch) == _BATCH:
                full, batch = batch, []
                ledger.add(full)
    finally:
        ledger.add(batch)


def _ask_concurrently(
    unanswered: Iterable[tuple[str, Request]], judge: Judge, ledger: Ledger, max_concurrency: int, bar: tqdm
) -> None:
    lock = threading.Lock()

    def ask(key: str, request: Request) -> None:
        # Kept by the thread that asked: an interrupt, which only reaches the main thread, cannot part
        # a paid answer from its row.
        vote = Vote.of(key, request, judge.answer(request))
        with lock:
            ledger.add([vote])

    def settle(done: Iterable[Future[None]]) -> None:
        for future in done:
            future.result()
            bar.update()

    under_way: set[Future[None]] = set()
    # No more are submitted than there are threads, so that leaving the pool, for whatever reason,
    # waits for the answers under way and for nothing else.
    with ThreadPoolExecutor(max_concurrency, thread_name_prefix="judge") as pool:
        for key, request in unanswered:
            if len(under_way) == max_concurrency:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                settle(done)
            under_way.add(pool.submit(ask, key, request))
        settle(wait(under_way).done)
