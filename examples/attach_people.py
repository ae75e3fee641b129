"""Users, a project and signed session cookies, for the examples that attach the rules to a server of their own.

An application has all of this already; :class:`People` is the part to write for it. Its three questions, ``identify``,
``check_access`` and ``recheck``, are asked in worker threads, so they may look things up in a database. An application
with Flask sessions and AutoModerate's tables needs none of it: ``attach_flask_socketio.py``.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie

from itsdangerous import BadSignature, TimestampSigner
from werkzeug.security import check_password_hash, generate_password_hash

from automoderate.core.hub import Access, Identity

MAX_AGE = 86_400
"""Seconds for which somebody stays logged in."""


class People:
    """``alice`` and ``bob`` have the same password; project ``forum`` is alice's alone."""

    def __init__(self, password: str) -> None:
        self.passwords = {name: generate_password_hash(password) for name in ("alice", "bob")}
        self.members = {"forum": {"alice"}}
        self._signer = TimestampSigner(secrets.token_bytes(32))

    def log_in(self, username: str, password: str) -> str | None:
        """The session cookie's value, or None."""
        if not check_password_hash(self.passwords.get(username, ""), password):
            return None
        return self._signer.sign(username).decode()

    def identify(self, cookie: str | None) -> Identity | None:
        """Whose ``Cookie`` header it is."""
        try:
            session = SimpleCookie(cookie or "").get("session")
            user = self._signer.unsign(session.value, MAX_AGE).decode() if session else None
        except (CookieError, BadSignature):
            return None
        return Identity(user, username=user) if user in self.passwords else None

    def check_access(self, user_id: str, project_id: str) -> Access:
        """Whether the user may watch the project."""
        if user_id not in self.passwords:
            return Access.NO_USER
        if project_id not in self.members:
            return Access.NOT_FOUND
        return Access.GRANTED if user_id in self.members[project_id] else Access.DENIED

    def recheck(self, user_id: str, project_ids: Sequence[str]) -> frozenset[str] | None:
        """Which of the projects the user may still watch."""
        if user_id not in self.passwords:
            return None
        return frozenset(project for project in project_ids if user_id in self.members.get(project, ()))
