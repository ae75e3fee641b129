"""AutoModerate's rooms on the ``socketio.AsyncServer`` of a Starlette application, under uvicorn.

    pip install uvicorn starlette websockets
    PASSWORD=secret python3 examples/attach_starlette.py 6217

``POST /login`` with ``{"username": "alice", "password": "secret"}`` sets the session cookie; a user who is logged in
joins ``forum`` over Socket.IO and sees what ``POST /updates/forum`` publishes. FastAPI goes the same way.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import socketio
import uvicorn
from attach_people import People
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import Access, Hub
from automoderate.integrations.socketio import attach

people = People(os.environ.get("PASSWORD", "secret"))
sio = socketio.AsyncServer(async_mode="asgi")
attachment = attach(sio, Hub(random=random.random), directory=people, backplane=MemoryBackplane())


async def log_in(request: Request) -> Response:
    form = await request.json()
    session = await asyncio.to_thread(people.log_in, form["username"], form["password"])
    if session is None:
        return Response(status_code=401)
    response = Response(status_code=204)
    response.set_cookie("session", session, httponly=True, samesite="lax")
    return response


async def publish(request: Request) -> Response:
    user, project_id = people.identify(request.headers.get("cookie")), request.path_params["project_id"]
    if user is None or people.check_access(user.user_id, project_id) is not Access.GRANTED:
        return Response(status_code=403)
    published = attachment.publish(project_id, "moderation_update", await request.json())
    return JSONResponse({"event_id": published.result()}, status_code=202)  # done already


async def echo(sid: str, text: str) -> str:
    """An event of the application's own: it goes on as before."""
    return text


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    await attachment.aclose()


sio.on("echo", echo)
routes = [Route("/login", log_in, methods=["POST"]), Route("/updates/{project_id}", publish, methods=["POST"])]
app = socketio.ASGIApp(sio, Starlette(routes=routes, lifespan=lifespan))

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]) if len(sys.argv) > 1 else 6217)
