"""A directory in memory."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from automoderate.core.hub import Access, Identity


@define
class MemoryDirectory:
    """A ``Directory`` in dictionaries, for tests.

    A user's cookie is ``session=<id>``. Whatever follows a ``#`` in it is ignored: so ``session=<id>#2`` is another
    cookie of the same user, as a browser has one after the application renewed it.
    """

    users: dict[str, bool] = field(factory=dict)
    """Whether each user is active."""
    usernames: dict[str, str] = field(factory=dict)
    """The names of users that are not called by their id."""
    projects: dict[str, set[str]] = field(factory=dict)
    """Who may see each project: its owner and its members."""
    keys: dict[str, str] = field(factory=dict)
    """The project of each API key."""
    admins: set[str] = field(factory=set)
    """The users with ``is_admin``."""

    def add_user(self, user_id: str, *, active: bool = True, username: str | None = None) -> None:
        """Add a user, or change whether one is active."""
        self.users[user_id] = active
        if username is not None:
            self.usernames[user_id] = username

    def add_project(self, project_id: str, *, owner: str, members: Sequence[str] = ()) -> None:
        """Add a project, or change who may see one."""
        self.projects[project_id] = {owner, *members}

    def cookie_of(self, user_id: str) -> str:
        """The ``Cookie`` header of a client that is logged in as this user."""
        return f"session={user_id}"

    def key_projects_many(self, keys: Sequence[str]) -> list[str | None]:
        """The project that each API key may publish to; None for what is no key."""
        return [self.keys.get(key) for key in keys]

    def admins_many(self, user_ids: Sequence[str]) -> list[bool]:
        """Whether each is an active user with ``is_admin``."""
        return [user_id in self.admins and self.users.get(user_id, False) for user_id in user_ids]

    def ping(self) -> None:
        """Nothing to ask."""

    def identify_many(self, cookies: Sequence[str | None]) -> list[Identity | None]:
        """Answer the questions of ``identify``, in order."""
        return [self.identify(cookie) for cookie in cookies]

    def check_access_many(self, pairs: Sequence[tuple[str, str]]) -> list[Access]:
        """Answer the questions of ``check_access``, in order."""
        return [self.check_access(user_id, project_id) for user_id, project_id in pairs]

    def recheck_many(self, questions: Sequence[tuple[str, tuple[str, ...]]]) -> list[frozenset[str] | None]:
        """Answer the questions of ``recheck``, in order."""
        return [self.recheck(user_id, project_ids) for user_id, project_ids in questions]

    def identify(self, cookie: str | None) -> Identity | None:
        """The active user whom a ``Cookie`` header names; None where it names none."""
        user_id = self.session_user(cookie)
        if user_id is None or not self.users.get(user_id):
            return None
        return Identity(user_id, self.usernames.get(user_id, user_id))

    def session_cookie(self, cookie: str | None) -> str | None:
        """The session cookie's value in a whole ``Cookie`` header; None where it is absent."""
        for part in (cookie or "").split("; "):
            name, _, value = part.partition("=")
            if name == "session":
                return value
        return None

    def session_user(self, cookie: str | None) -> str | None:
        """The id of the user whom a ``Cookie`` header names, whether or not there is such a user."""
        value = self.session_cookie(cookie)
        return None if value is None else value.partition("#")[0]

    def check_access(self, user_id: str, project_id: str) -> Access:
        """Whether a user may see a project."""
        if not self.users.get(user_id):
            return Access.NO_USER
        if project_id not in self.projects:
            return Access.NOT_FOUND
        return Access.GRANTED if user_id in self.projects[project_id] else Access.DENIED

    def recheck(self, user_id: str, project_ids: Sequence[str]) -> frozenset[str] | None:
        """Which of the projects the user may see still; None where there is no such active user."""
        if not self.users.get(user_id):
            return None
        return frozenset(p for p in project_ids if user_id in self.projects.get(p, ()))
