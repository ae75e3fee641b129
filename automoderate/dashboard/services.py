"""What the views need, kept on the application they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import field, frozen
from flask import current_app

from automoderate.directory import accounts
from automoderate.directory.database import Database
from automoderate.realtime import Realtime


@frozen
class Person:
    """The logged-in user as Flask-Login sees it."""

    id: str
    username: str
    is_admin: bool = False
    is_authenticated: bool = field(default=True, init=False)
    is_active: bool = field(default=True, init=False)
    is_anonymous: bool = field(default=False, init=False)

    def get_id(self) -> str:
        """What the session names the user by."""
        return self.id


class Surroundings(Protocol):
    """Where the pages stand: whose session counts there, and where they lead. Asked within a request."""

    way_home: str
    """The words of a link that leads home."""

    def person(self) -> Person | None:
        """Who is logged in."""

    def home(self) -> str:
        """The address where everything begins."""

    def links(self, person: Person) -> Sequence[tuple[str, str, str]]:
        """The main navigation: what each link is called, its address, and the view that is there."""

    def login(self, back: str | None = None) -> str | None:
        """The address to log in at, from where one comes back; None where nobody knows it."""

    def logout(self) -> str | None:
        """Where a form that logs out leads; None where that is not ours to do."""

    def token(self, person: Person) -> str:
        """What a page shows the HTTP API so that it may change something: ``is_genuine`` takes it."""


@frozen
class Services:
    """The database, the running server, where the operator's pages of contents are, and what is around the pages."""

    database: Database
    realtime: Realtime
    content_url: str | None
    around: Surroundings


def services() -> Services:
    """Those of the application that handles the current request."""
    found: Services = current_app.extensions["automoderate"]
    return found


def load_person(user_id: str) -> Person | None:
    """The active user with this id."""
    user = accounts.get_user(services().database, user_id)
    if user is None or not user.is_active:
        return None
    return Person(user.id, user.username, accounts.is_admin(services().database, user_id))
