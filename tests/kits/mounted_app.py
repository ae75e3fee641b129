"""The smallest application that people mount: a login with Flask-Login, and nothing that knows of this server.

``--wsgi kits.mounted_app:create_app()``; it reads the users of ``DATABASE_URL``.
"""

from __future__ import annotations

import os
from typing import Any

import flask
import flask_login

from automoderate.directory import accounts
from automoderate.directory.database import Database

FORM = '<form method="post"><input name="username"><input name="password" type="password"><button>Go</button></form>'


class User(flask_login.UserMixin):  # type: ignore[misc]
    def __init__(self, id: str) -> None:
        self.id = id


def create_app() -> flask.Flask:
    app = flask.Flask(__name__, static_folder=None)
    app.config.update(SECRET_KEY=os.environ["SECRET_KEY"], SESSION_COOKIE_NAME="existing")
    manager = flask_login.LoginManager(app)
    manager.user_loader(User)
    manager.login_view = "login"
    app.add_url_rule("/", view_func=home)
    app.add_url_rule("/auth/login", view_func=login, methods=["GET", "POST"])
    app.add_url_rule("/auth/logout", view_func=logout, methods=["POST"])
    return app


def home() -> str:
    return "the existing application"


def login() -> Any:
    if flask.request.method == "GET":
        return FORM
    database = Database(os.environ["DATABASE_URL"], read_only=True)
    try:
        user = accounts.authenticate(database, flask.request.form["username"], flask.request.form["password"])
    finally:
        database.close()
    if user is None:
        return "wrong", 401
    flask_login.login_user(User(user.id))
    return flask.redirect(flask.request.args.get("next", "/"))


def logout() -> str:
    flask_login.logout_user()
    return "bye"
