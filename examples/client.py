import asyncio
import os

import socketio

client = socketio.AsyncClient()
newest: str | None = None  # where to go on after a lost connection


async def join() -> None:
    await client.emit("join_project", {"project_id": os.environ["PROJECT"], "last_event_id": newest})


@client.event
async def connected(message: object) -> None:
    await join()


@client.event
async def joined_project(joined: dict[str, str | bool]) -> None:
    global newest
    newest = str(joined["last_event_id"])
    print("live in", joined["room"], "(some updates were missed)" if joined.get("recovered") is False else "")


@client.event
async def moderation_update(update: dict[str, str]) -> None:
    global newest
    newest = update["event_id"]
    print(update["status"], update.get("content_preview"))


@client.event
async def error(error: dict[str, str]) -> None:
    print("error:", error["message"])
    if error["code"] in ("timeout", "server_error"):
        await client.sleep(3)
        await join()


@client.event
async def connect_error(why: object) -> None:
    print("cannot connect:", why)


@client.event
async def disconnect(reason: str) -> None:
    print("disconnected:", reason)


def headers() -> dict[str, str]:  # a function, as the library uses a plain dict up with the first connection
    return {"Cookie": os.environ["COOKIE"]}


async def main() -> None:
    await client.connect(os.environ["URL"], headers=headers, transports=["websocket"], retry=True)
    await client.wait()


asyncio.run(main())
