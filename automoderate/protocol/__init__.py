"""Engine.IO 4 and Socket.IO 5 on the server side, without I/O: bytes in, events and bytes out."""

from automoderate.protocol.config import Config
from automoderate.protocol.driver import Driver, Layer
from automoderate.protocol.engineio import EngineIOServer
from automoderate.protocol.events import (
    AckReceived,
    AppBody,
    AppRequest,
    AppRequestAborted,
    AppRequestEnd,
    ClientConnecting,
    ClientDisconnected,
    CredentialChanged,
    EngineIOEvent,
    EventReceived,
    MessageReceived,
    SessionClosed,
    SessionOpened,
    SessionUpgraded,
    SocketIOEvent,
)
from automoderate.protocol.files import StaticFile
from automoderate.protocol.model import (
    Client,
    CloseReason,
    Connection,
    Encoded,
    Farewell,
    Peer,
    Request,
    Session,
    Transport,
)
from automoderate.protocol.outputs import (
    Abort,
    Close,
    Fanout,
    Job,
    Output,
    PauseReading,
    RequestAborted,
    RequestBody,
    RequestFinished,
    RequestStarted,
    ResumeReading,
    SendEof,
    Write,
)
from automoderate.protocol.socketio import SocketIOServer

__all__ = [
    "Abort", "AckReceived", "AppBody", "AppRequest", "AppRequestAborted", "AppRequestEnd", "Client",
    "ClientConnecting", "ClientDisconnected", "Close", "CloseReason", "Config", "Connection", "CredentialChanged",
    "Driver", "Encoded", "EngineIOEvent", "EngineIOServer", "EventReceived", "Fanout", "Farewell", "Job", "Layer",
    "MessageReceived", "Output", "PauseReading", "Peer", "Request", "RequestAborted", "RequestBody", "RequestFinished",
    "RequestStarted", "ResumeReading", "SendEof", "Session", "SessionClosed", "SessionOpened", "SessionUpgraded",
    "SocketIOEvent",
    "SocketIOServer", "StaticFile", "Transport", "Write",
]  # fmt: skip
