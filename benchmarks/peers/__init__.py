"""The servers we are compared with, each a small process that speaks the line protocol of :mod:`benchmarks.servers`.

All of them work without compression or access log, log visitors in by the same session cookie, and ask the same
database whether they may join. None but ``attached`` keeps a history (``node_server.mjs`` does where CONFIG asks for
it) or looks again at what somebody may see: they do less than our server, never more.

======================  =======================================================  =================================
module                  what runs                                                started as
======================  =======================================================  =================================
``uvicorn_socketio``    python-socketio's AsyncServer under uvicorn              ``python -m benchmarks.peers.…``
``attached``            the same with our rules on it                            ``python -m benchmarks.peers.…``
``eventlet_socketio``   python-socketio's Server on eventlet                     ``python -m benchmarks.peers.…``
``flask_threading``     Flask-SocketIO with threads, as AutoModerate runs today  ``python -m benchmarks.peers.…``
``node_server.mjs``     Node's socket.io                                         ``node benchmarks/peers/…``
``uws_socketio.mjs``    socket.io on µWebSockets.js                              ``node benchmarks/peers/…``
``uws_raw.mjs``         µWebSockets.js by hand                                   ``node benchmarks/peers/…``
``bun_socketio.mjs``    socket.io on Bun                                         ``bun benchmarks/peers/…``
``bun_raw.mjs``         Bun by hand                                              ``bun benchmarks/peers/…``
======================  =======================================================  =================================

Those in JavaScript, and Bun itself, are installed by ``npm ci`` in this folder.
"""
