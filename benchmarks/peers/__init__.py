"""The servers we are compared with, each a small process that speaks the line protocol of :mod:`benchmarks.servers`.

All of them offer WebSocket alone, without compression or access log, log visitors in by the same session cookie, and
ask the same database whether they may join. None but ``attached`` keeps a history or looks again at what somebody may
see: they do less than our server, never more.

=====================  =======================================================  =================================
module                 what runs                                                started as
=====================  =======================================================  =================================
``uvicorn_socketio``   python-socketio's AsyncServer under uvicorn              ``python -m benchmarks.peers.…``
``attached``           the same with our rules on it                            ``python -m benchmarks.peers.…``
``eventlet_socketio``  python-socketio's Server on eventlet                     ``python -m benchmarks.peers.…``
``flask_threading``    Flask-SocketIO with threads, as AutoModerate runs today  ``python -m benchmarks.peers.…``
``node_server.mjs``    Node's socket.io; ``npm ci`` in this folder installs it  ``node benchmarks/peers/…``
=====================  =======================================================  =================================
"""
