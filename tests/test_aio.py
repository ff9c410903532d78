"""What is the async twin's own: threads, cancelling, closing. Results are tests/test_congruence.py's job."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import vecdb


def test_it_opens_by_awaiting_by_entering_and_by_using(path: Path) -> None:
    async def scenario() -> None:
        db = await vecdb.open_async(path, background=False)
        await db.collection("one")
        await db.close()
        async with vecdb.open_async(path, background=False) as db:
            assert await db.collections() == ["one"]
        db = vecdb.open_async(path, background=False)
        assert await db.collections() == ["one"]
        await db.close()
        await db.close()
        with pytest.raises(vecdb.DatabaseClosed, match="open it again"):
            await db.collections()

    asyncio.run(scenario())


def test_what_cannot_be_opened_is_told_when_it_is_awaited(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)

    async def scenario() -> None:
        with pytest.raises(vecdb.NotAVecdbFile):
            await vecdb.open_async(path)

    asyncio.run(scenario())


def test_the_loop_goes_on_while_threads_work(path: Path) -> None:
    async def scenario() -> None:
        async with vecdb.open_async(path, background=False) as db:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.005)
                    ticks += 1

            ticking = asyncio.create_task(tick())
            await db.run(lambda: time.sleep(0.2))
            ticking.cancel()
            assert ticks > 5

    asyncio.run(scenario())


def test_no_more_threads_run_than_were_allowed(path: Path) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    async def scenario() -> None:
        async with vecdb.open_async(path, background=False, threads=3) as db:
            await asyncio.gather(*(db.run(work) for _ in range(20)))

    asyncio.run(scenario())
    assert most == 3


def test_a_cancelled_write_is_made_whole_or_not_at_all(path: Path) -> None:
    async def scenario() -> None:
        async with vecdb.open_async(path, background=False) as db:
            docs = await db.collection("docs")
            entered = asyncio.Event()
            loop = asyncio.get_running_loop()

            def records() -> Iterator[dict[str, Any]]:
                for i in range(100):
                    if i == 50:
                        loop.call_soon_threadsafe(entered.set)
                        time.sleep(0.05)
                    yield {"id": str(i), "text": "t"}

            writing = asyncio.create_task(docs.add(records()))
            await entered.wait()
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            assert await docs.count() in (0, 100)

    asyncio.run(scenario())
    with vecdb.open(path, background=False) as db:  # closing waited for the thread, which had begun
        assert db.collection("docs").count() == 100
        assert db.check() == []


def test_a_call_that_was_cancelled_while_it_waited_is_never_made(path: Path) -> None:
    async def scenario() -> None:
        async with vecdb.open_async(path, background=False, threads=1) as db:
            docs = await db.collection("docs")
            holding = asyncio.create_task(db.run(lambda: time.sleep(0.1)))
            await asyncio.sleep(0.01)
            waiting = asyncio.create_task(docs.add(ids=["a"], texts=["t"]))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await holding
            assert await docs.count() == 0

    asyncio.run(scenario())


def test_many_tasks_read_and_write_at_once(path: Path) -> None:
    async def scenario() -> None:
        async with vecdb.open_async(path) as db:
            docs = await db.collection("docs", dimension=2)

            async def write(part: int) -> None:
                await docs.add([{"id": f"{part}-{i}", "text": "word", "vector": [part + 1, i]} for i in range(20)])

            async def read() -> None:
                hits = await docs.search([1.0, 0.0], k=3)
                assert len(hits) <= 3

            await asyncio.gather(*(write(part) for part in range(10)), *(read() for _ in range(20)))
            assert await docs.count() == 200
            assert await docs.check() == []

    asyncio.run(scenario())


def test_records_may_come_from_an_async_generator(path: Path) -> None:
    async def records() -> AsyncIterator[dict[str, Any]]:
        for i in range(25):
            await asyncio.sleep(0)
            yield {"id": str(i), "text": "t"}

    async def broken() -> AsyncIterator[dict[str, Any]]:
        yield {"id": "x", "text": "t"}
        raise RuntimeError("the source broke off")

    async def scenario() -> None:
        async with vecdb.open_async(path, background=False) as db:
            docs = await db.collection("docs")
            assert (await docs.add(records())).added == 25
            assert (await docs.upsert(records(), batch_size=10)).unchanged == 25
            with pytest.raises(RuntimeError, match="broke off"):
                await docs.add(broken())
            assert await docs.count() == 25

    asyncio.run(scenario())


def test_context_variables_reach_the_threads(path: Path) -> None:
    who = contextvars.ContextVar("who", default="nobody")

    async def scenario() -> str:
        who.set("me")
        async with vecdb.open_async(path, background=False) as db:
            return await db.run(who.get)

    assert asyncio.run(scenario()) == "me"
