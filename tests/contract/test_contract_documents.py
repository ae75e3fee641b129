"""The contract for machines, as a running server has it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from automoderate import contract
from kits.contract_site import SECRET, Site, signing_application


@pytest.mark.every_runtime
def test_the_documents(site: Site) -> None:
    answers = {path: site.http("GET", path) for path in contract.documents()}
    assert answers["/api/openapi.json"].json == contract.openapi()
    assert answers["/api/asyncapi.json"].json == contract.asyncapi()
    assert answers["/api/events.d.ts"].text == contract.typescript()
    assert {path: answer.headers["content-type"] for path, answer in answers.items()} == {
        "/api/openapi.json": "application/json",
        "/api/asyncapi.json": "application/json",
        "/api/events.d.ts": "application/typescript; charset=utf-8",
    }


@pytest.fixture
def mounted(own_site: Any) -> Iterator[Site]:
    """A server with somebody else's application, whose session cookie has a name of its own."""
    module = ModuleType("contract_cookie")
    module.app = signing_application(SECRET)  # type: ignore[attr-defined]
    module.app.config["SESSION_COOKIE_NAME"] = "theirs"
    sys.modules["contract_cookie"] = module
    yield own_site(wsgi="contract_cookie:app")
    del sys.modules["contract_cookie"]


def test_where_another_application_is_mounted(mounted: Site) -> None:
    assert mounted.http("GET", "/realtime/api/openapi.json").json == contract.openapi("/realtime", "theirs")
    assert mounted.http("GET", "/realtime/api/asyncapi.json").json == contract.asyncapi("theirs")
    assert mounted.http("GET", "/realtime/api/events.d.ts").text == contract.typescript()
    assert mounted.http("GET", "/api/openapi.json").status == 404
