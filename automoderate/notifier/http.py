"""The publishing API as its callers see it: one HTTP request per update, and errors a person can act on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import requests

_TEMPORARY = frozenset({429, 502, 503, 504})
_NOT_HERE = frozenset({404, 405})
_MOUNTED = "/realtime"


class PublishingError(Exception):
    """The publishing API did not take something; the message is one line for a person."""


class Unreachable(PublishingError):
    """Nobody answered, or the answer was lost on the way."""


class Refused(PublishingError):
    """The server answered with anything but acceptance. ``temporary`` where trying again later may help."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        self.temporary = status in _TEMPORARY


def check_url(url: str) -> str:
    """``url`` without a slash at its end. Raises ValueError where it is not a whole HTTP URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is no server address; it should look like http://127.0.0.1:6217")
    return url.rstrip("/")


def check_api_key(api_key: str) -> str:
    """``api_key`` as it is. Raises ValueError where it could not travel in a header."""
    if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise ValueError("an API key is printable ASCII without spaces, like am_…")
    return api_key


class PublishingApi:
    """The publishing API of the server at ``url``, over one kept-alive connection. One thread at a time.

    Where another application is mounted the API lives under ``/realtime``: where it is not found in its usual place
    that is tried too, and the place that answered is remembered. ``timeout`` is in seconds, for connecting and again
    for the answer.

    Raises ValueError for a URL that is none.
    """

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        base = check_url(url)
        self._bases = (base,) if base.endswith(_MOUNTED) else (base, base + _MOUNTED)
        self._timeout = timeout
        self._session = requests.Session()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.close()

    def publish(self, project_id: str, api_key: str, event: str, data: Mapping[str, Any]) -> str:
        """Publish one event and return its ``event_id``. Raises Unreachable or Refused."""
        answer = self._post(f"/api/projects/{quote(project_id, safe='')}/events", api_key, event=event, data=data)
        return str(answer.get("event_id", ""))

    def access_changed(self, api_key: str, **whose: str) -> None:
        """Have live sessions checked again, by ``project_id`` and ``user_id``. Raises Unreachable or Refused."""
        self._post("/api/access-changes", api_key, **whose)

    def _post(self, path: str, api_key: str, **body: Any) -> dict[str, Any]:
        *others, last = self._bases
        for base in others:
            try:
                return self._post_to(base, path, api_key, body)
            except Refused as refused:
                if refused.status not in _NOT_HERE:
                    raise
        return self._post_to(last, path, api_key, body)

    def _post_to(self, base: str, path: str, api_key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"X-API-Key": api_key, "Content-Type": "application/json"}
        try:
            # A redirect would make the POST a GET of some page and lose what was to be published.
            response = self._session.post(
                base + path, data=json.dumps(body), headers=headers, timeout=self._timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            raise Unreachable(f"cannot reach {base}: {reason(error)}") from error
        answer = _answer(response)
        if response.status_code != 202:
            raise Refused(_refusal(base, response, answer), response.status_code)
        self._bases = (base,)
        return answer


def reason(error: requests.RequestException) -> str:
    """Why a request failed, in a few words: the system's own where there are some."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        # urllib3 keeps what happened in ``reason`` or in the arguments, not always in the chain of causes.
        causes = (getattr(inner, "reason", None), *inner.args, inner.__cause__, inner.__context__)
        inner = next((cause for cause in causes if isinstance(cause, BaseException)), None)
    return str(error) or type(error).__name__


def _answer(response: requests.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except requests.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _refusal(base: str, response: requests.Response, answer: Mapping[str, Any]) -> str:
    said = answer.get("error") or answer.get("message")
    if isinstance(said, Mapping):
        said = said.get("message")
    if said:
        return f"{base} refused ({response.status_code}): {said}"
    if response.is_redirect:
        return f"{base} answered {response.status_code}, it is at {response.headers['Location']}"
    if response.status_code in _NOT_HERE or response.ok:
        return f"there is no publishing API at {base} (it answered {response.status_code})"
    return f"{base} answered {response.status_code} {response.reason}"


__all__ = ["PublishingApi", "PublishingError", "Refused", "Unreachable", "check_api_key", "check_url", "reason"]
