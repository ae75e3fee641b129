"""Engine.IO 4 and Socket.IO 5 on the server side, without I/O: bytes in, events and bytes out."""

from automoderate.protocol.config import Config
from automoderate.protocol.engineio import EngineServer
from automoderate.protocol.events import (
    AckReceived,
    AppBody,
    AppRequest,
    AppRequestAborted,
    AppRequestEnd,
    ClientConnecting,
    ClientDisconnected,
    CloseReason,
    CredentialChanged,
    EngineEvent,
    EventReceived,
    MessageReceived,
    Request,
    SessionClosed,
    SessionOpened,
    SessionUpgraded,
    SocketEvent,
)
from automoderate.protocol.http import Connection
from automoderate.protocol.outputs import (
    Abort,
    Close,
    Driver,
    Fanout,
    Job,
    Output,
    Peer,
    RequestAborted,
    RequestBody,
    RequestFinished,
    RequestStarted,
    Transport,
    Write,
)
from automoderate.protocol.session import Encoded, Session
from automoderate.protocol.socketio import Client, SocketServer

__all__ = [
    "Abort", "AckReceived", "AppBody", "AppRequest", "AppRequestAborted", "AppRequestEnd", "Client",
    "ClientConnecting", "ClientDisconnected", "Close", "CloseReason", "Config", "Connection", "CredentialChanged",
    "Driver", "Encoded", "EngineEvent", "EngineServer", "EventReceived", "Fanout", "Job", "MessageReceived", "Output",
    "Peer", "Request", "RequestAborted", "RequestBody", "RequestFinished", "RequestStarted", "Session",
    "SessionClosed", "SessionOpened", "SessionUpgraded", "SocketEvent", "SocketServer", "Transport", "Write",
]  # fmt: skip
