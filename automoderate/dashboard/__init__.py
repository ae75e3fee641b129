"""The web side: logging in, a person's projects, and a live page for each project.

A Flask application that only reads the database; beside a mounted application, one page of it. It reaches the real-time
server through :class:`~automoderate.realtime.Realtime` alone, so it can run in any thread and with any adapter.
"""

from automoderate.dashboard.application import create_app
from automoderate.dashboard.error_pages import error_pages
from automoderate.dashboard.mounted import put_inspector_beside
from automoderate.dashboard.pages import client_installed
from automoderate.dashboard.tokens import is_genuine

__all__ = ["client_installed", "create_app", "error_pages", "is_genuine", "put_inspector_beside"]
