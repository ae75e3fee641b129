"""The application of ``attach_threads.py`` on greenlets: ``python -m kits.greenlet_app eventlet``, or ``gevent``."""

from __future__ import annotations

import importlib
import random
import sys
import warnings
from typing import Any

import attach_threads
import socketio

from automoderate.backplane.memory import MemoryBackplane
from automoderate.core.hub import Hub
from automoderate.integrations.socketio import attach


def serve_eventlet(application: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import eventlet
        import eventlet.wsgi
    listener = eventlet.listen(("127.0.0.1", 0))
    print(f"running on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    eventlet.wsgi.server(listener, application, log_output=False)


def serve_gevent(application: Any) -> None:
    pywsgi = importlib.import_module("gevent.pywsgi")  # which may not be installed
    server = pywsgi.WSGIServer(("127.0.0.1", 0), application, log=None)
    server.start()
    print(f"running on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sio = socketio.Server(async_mode=sys.argv[1])
    sio.on("echo", attach_threads.echo)
    hub = Hub(random=random.random)
    attach_threads.attachment = attach(sio, hub, directory=attach_threads.people, backplane=MemoryBackplane())
    serve = {"eventlet": serve_eventlet, "gevent": serve_gevent}[sys.argv[1]]
    serve(socketio.WSGIApp(sio, attach_threads.app))
