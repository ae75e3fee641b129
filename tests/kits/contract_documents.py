"""What travels in tests, held against the documents for machines: what they do not say must not be seen.

Clients hand over each event, acknowledgement and answer that they get; what does not fit is an AssertionError. Keys
that a document does not name are an error as well, unless it says that there may be others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.protocols import Validator

from automoderate import contract

EVENTS = contract.asyncapi()
HTTP = contract.openapi()

FORMAT_ERRORS = {"project_id_required", "invalid_project_id", "invalid_statuses", "invalid_content_id"}
"""What is said of a payload that does not fit, and never of one that does."""


def names(action: str) -> set[str]:
    """The events that the server may "send", or will "receive"."""
    return {name for name, operation in EVENTS["operations"].items() if operation["action"] == action}


def received(event: str, data: Any) -> None:
    """A client was sent this event."""
    assert event in names("send"), f"{event} is no event that the document has: {data}"
    _check(EVENTS, _payload("events", event), data)


def acknowledged(event: str, sent: Sequence[Any], answer: Any) -> None:
    """A client sent this event with these arguments, and this is what the acknowledgement says."""
    if event not in names("receive"):
        # An event that nobody handles is not answered, but for what holds for every event.
        _check(EVENTS, {"$ref": "#/components/schemas/ErrorAnswer"}, answer)
        assert answer["error"]["code"] in ("authentication_required", "rate_limited"), (event, answer)
        return
    _check(EVENTS, _payload("acknowledgements", f"{event}_acknowledged"), answer)
    if answer.get("error", {}).get("code") in FORMAT_ERRORS:
        assert not conforms(event, sent), f"{event} {sent} is as the document says, and was refused: {answer}"


def conforms(event: str, sent: Sequence[Any]) -> bool:
    """Whether these are the arguments with which a client should send the event."""
    return len(sent) == 1 and _validator(EVENTS, _payload("events", event)).is_valid(sent[0])


def answered(method: str, target: str, status: int, content_type: str, body: str, prefix: str = "") -> None:
    """A request of the HTTP API, which is below ``prefix``, got this answer; other paths are not looked at."""
    path = target.partition("?")[0]
    template = _template(path.removeprefix(prefix)) if path.startswith(prefix) else None
    if template is None:
        return
    operation = HTTP["paths"][template].get("get" if method == "HEAD" else method.lower())
    if operation is None:
        assert status == 405, (method, target, status)
        return
    documented = operation["responses"].get(str(status))
    assert documented is not None, f"{method} {target}: the document has no {status} {body[:500]}"
    media = content_type.partition(";")[0]
    assert media in documented["content"], f"{method} {target}: {status} is {content_type}"
    if media == "application/json" and method != "HEAD":
        _check(HTTP, documented["content"][media]["schema"], json.loads(body))


def is_body(method: str, path: str, body: Any) -> bool:
    """Whether this is a body that a request should have."""
    template = _template(path)
    assert template is not None
    content = HTTP["paths"][template][method]["requestBody"]["content"]
    return _validator(HTTP, content["application/json"]["schema"]).is_valid(body)


def _payload(channel: str, message: str) -> Any:
    return EVENTS["channels"][channel]["messages"][message]["payload"]


@cache
def _templates() -> Sequence[tuple[re.Pattern[str], str]]:
    """The longest first: what a path names may have slashes."""
    paths = sorted(HTTP["paths"], key=len, reverse=True)
    return [(re.compile(re.sub(r"\{\w+\}", ".+", path)), path) for path in paths]


def _template(path: str) -> str | None:
    return next((template for pattern, template in _templates() if pattern.fullmatch(path)), None)


_VALIDATORS: dict[str, Validator] = {}


def _validator(document: Mapping[str, Any], schema: Any) -> Validator:
    kind = Draft7Validator if document is EVENTS else Draft202012Validator
    key = f"{kind.__name__} {json.dumps(schema)}"
    if key not in _VALIDATORS:
        whole = {"allOf": [schema], "components": document["components"]}
        kind.check_schema(whole)
        _VALIDATORS[key] = kind(whole)
    return _VALIDATORS[key]


def _check(document: Mapping[str, Any], schema: Any, value: Any) -> None:
    problems = [f"{error.json_path}: {error.message}" for error in _validator(document, schema).iter_errors(value)]
    assert not problems, f"{value} is not what the document says: {problems}"
    keys = _keys(document, schema)
    if isinstance(value, dict) and keys is not None:
        assert set(value) <= keys, f"{value} has keys of which the document says nothing"


def _keys(document: Mapping[str, Any], schema: Mapping[str, Any]) -> set[str] | None:
    """The keys that an object of this schema may have; None where it may have any."""
    parts = list(_parts(document, schema))
    if any(part.get("additionalProperties") for part in parts) or not any("properties" in part for part in parts):
        return None
    return {name for part in parts for name in part.get("properties", {})}


def _parts(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    if "$ref" in schema:
        yield from _parts(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    for each in (*schema.get("allOf", ()), *schema.get("anyOf", ())):
        yield from _parts(document, each)
