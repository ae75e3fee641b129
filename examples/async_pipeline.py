"""A moderation pipeline on asyncio or trio that tells dashboards what it decides.

URL=… API_KEY=… PROJECT=… python3 examples/async_pipeline.py [asyncio|trio]
"""

from __future__ import annotations

import os
import sys

import anyio

from automoderate.notifier import AsyncWebSocketNotifier

TEXTS = ("Hello everybody", "Buy my spam", "See you tomorrow")


async def moderate(notifier: AsyncWebSocketNotifier, number: int, text: str) -> None:
    content = {"id": str(number), "project_id": os.environ["PROJECT"], "content_data": text}
    await notifier.send_content_created(content)
    started = anyio.current_time()
    await anyio.sleep(0.1)  # here the rules and the models look at it
    decision = "rejected" if "spam" in text else "approved"
    results = [{"moderator_type": "rule", "rule_name": "Spam"}]
    if not await notifier.send_update_async(content, decision, results, anyio.current_time() - started):
        print(f"no dashboard was told of {content['id']}")


async def main() -> None:
    async with (
        AsyncWebSocketNotifier(url=os.environ["URL"], api_key=os.environ["API_KEY"]) as notifier,
        anyio.create_task_group() as tasks,
    ):
        for number, text in enumerate(TEXTS):
            tasks.start_soon(moderate, notifier, number, text)


if __name__ == "__main__":
    anyio.run(main, backend=sys.argv[1] if len(sys.argv) > 1 else "asyncio")
