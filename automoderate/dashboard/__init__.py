"""The web side: logging in, a person's projects, a live page per project, and the publishing API.

A Flask application that only reads the database. It reaches the real-time server through
:class:`~automoderate.realtime.Realtime` alone, so it can run in any thread and with any adapter.
"""

from automoderate.dashboard.application import create_api_app, create_app

__all__ = ["create_api_app", "create_app"]
