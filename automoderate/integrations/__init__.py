"""The rules on servers that people run already: python-socketio's and Flask-SocketIO's."""
