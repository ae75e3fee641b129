import os

import socketio

client = socketio.Client()
newest: str | None = None


@client.event
def connected(message: object) -> None:
    client.emit("join_project", {"project_id": os.environ["PROJECT"], "last_event_id": newest})


@client.on("*")
def anything(event: str, data: dict[str, str]) -> None:
    global newest
    newest = data.get("event_id") or data.get("last_event_id") or newest
    print(event, data.get("status"), data.get("content_preview"), flush=True)


client.connect(os.environ["URL"], headers={"Cookie": os.environ["COOKIE"]}, transports=["websocket"])
client.wait()
