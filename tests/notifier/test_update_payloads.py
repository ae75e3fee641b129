"""Payloads from the objects a pipeline has at hand, and the check of what others publish."""

from __future__ import annotations

import enum
import gc
import json
import math
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import JSON, String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from automoderate import update_payloads


class Base(DeclarativeBase):
    """Tables of this test."""


class Content(Base):
    """Content as AutoModerate stores it."""

    __tablename__ = "content"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(36))
    content_type: Mapped[str] = mapped_column(String(50))
    content_data: Mapped[str]
    meta_data: Mapped[dict[str, Any]] = mapped_column(JSON)


FIELDS: dict[str, Any] = {
    "id": "c-1",
    "project_id": "p-1",
    "content_type": "text",
    "content_data": "Hello",
    "meta_data": {"user": "u"},
}
RULE = {"decision": "approved", "moderator_type": "rule", "rule_name": "Spam Detection", "confidence": 1.0}


def strict(data: dict[str, Any]) -> dict[str, Any]:
    """``data`` after a trip through strict JSON and UTF-8."""
    back: dict[str, Any] = json.loads(json.dumps(data, allow_nan=False, ensure_ascii=False).encode())
    return back


@pytest.fixture(params=["object", "mapping", "row"])
def content(request: pytest.FixtureRequest) -> object:
    if request.param == "row":
        return Content(**FIELDS)
    return SimpleNamespace(**FIELDS) if request.param == "object" else dict(FIELDS)


@pytest.mark.parametrize("result", [RULE, SimpleNamespace(**RULE)], ids=["mapping", "object"])
def test_a_moderation_update(content: object, result: object) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    project_id, data = update_payloads.moderation_update(content, "approved", [result, result], 1.23)
    timestamp = datetime.fromisoformat(data.pop("timestamp"))
    assert before <= timestamp <= datetime.now(UTC)
    assert timestamp.utcoffset() is not None
    assert project_id == "p-1"
    assert (
        data
        == strict(data)
        == {
            "content_id": "c-1",
            "project_id": "p-1",
            "status": "approved",
            "content_type": "text",
            "content_preview": "Hello",
            "meta_data": {"user": "u"},
            "results_count": 2,
            "processing_time": 1.23,
            "moderator_type": "rule",
            "moderator_name": "Rule",
            "rule_name": "Spam Detection",
        }
    )


def test_content_received(content: object) -> None:
    project_id, data = update_payloads.content_received(content)
    assert datetime.fromisoformat(data.pop("timestamp")).tzinfo is UTC
    assert project_id == "p-1"
    assert data == {
        "content_id": "c-1",
        "project_id": "p-1",
        "status": "pending",
        "content_type": "text",
        "content_preview": "Hello",
        "meta_data": {"user": "u"},
        "results_count": 0,
        "processing_time": 0.0,
        "moderator_type": "pending",
        "moderator_name": "Processing…",
        "rule_name": None,
    }


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([{"moderator_type": "ai", "rule_name": "ignored"}], ("ai", "AI", None)),
        ([{"moderator_type": "manual"}], ("manual", "Manual", None)),
        ([{"moderator_type": "human review"}], ("human review", "Human Review", None)),
        ([{"moderator_type": "rule"}], ("rule", "Rule", "Unknown Rule")),
        ([{"moderator_type": "rule", "rule_name": 7}, {"moderator_type": "ai"}], ("rule", "Rule", "7")),
        ([{"moderator_type": None}], ("unknown", "Unknown", None)),
        ([{}], ("unknown", "Unknown", None)),
        ([], ("unknown", "Unknown", None)),
        (None, ("unknown", "Unknown", None)),
        ((item for item in [{"moderator_type": "ai"}]), ("ai", "AI", None)),
        ({"moderator_type": "ai"}, ("ai", "AI", None)),
        ("nonsense", ("unknown", "Unknown", None)),
        ([None], ("unknown", "Unknown", None)),
    ],
)
def test_who_decided_comes_from_the_first_result(results: object, expected: tuple[str, str, str | None]) -> None:
    _, data = update_payloads.moderation_update(FIELDS, "flagged", results, 0.5)
    assert (data["moderator_type"], data["moderator_name"], data["rule_name"]) == expected


@pytest.mark.parametrize(
    ("text", "preview"),
    [
        ("x" * 100, "x" * 100),
        ("x" * 101, "x" * 100 + "..."),
        ("é" * 150, "é" * 100 + "..."),
        ("", ""),
        (None, ""),
        (b"bytes\xff", "bytes\N{REPLACEMENT CHARACTER}"),
        ({"image": "a.png"}, '{"image": "a.png"}'),
        ("half a pair: \ud83d", "half a pair: ?"),
    ],
)
def test_the_preview_is_the_first_hundred_characters(text: object, preview: str) -> None:
    for data in (
        update_payloads.moderation_update({**FIELDS, "content_data": text}, "approved", [], 0)[1],
        update_payloads.content_received({**FIELDS, "content_data": text})[1],
    ):
        assert strict(data)["content_preview"] == preview


class Decision(enum.Enum):
    """A decision as an enumeration."""

    REJECTED = "rejected"


@pytest.mark.parametrize(
    ("decision", "status"),
    [
        ("approved", "approved"),
        ("Flagged", "flagged"),
        (Decision.REJECTED, "rejected"),
        ("error", "pending"),
        (None, "pending"),
    ],
)
def test_the_status_is_one_of_four(decision: object, status: str) -> None:
    assert update_payloads.moderation_update(FIELDS, decision, [], 0)[1]["status"] == status


@pytest.mark.parametrize(
    ("total_time", "seconds"),
    [(None, 0.0), (Decimal("1.5"), 1.5), ("2.5", 2.5), ("soon", 0.0), (math.nan, 0.0), (math.inf, 0.0), (10**400, 0.0)],
)
def test_the_processing_time_is_a_finite_number(total_time: object, seconds: float) -> None:
    assert update_payloads.moderation_update(FIELDS, "approved", [], total_time)[1]["processing_time"] == seconds


def test_missing_attributes_do_not_hide_a_decision() -> None:
    project_id, data = update_payloads.moderation_update(SimpleNamespace(project_id="p-1"), "rejected", None, None)
    assert project_id == "p-1"
    assert data["content_id"] is None
    assert data["content_type"] == "text"
    assert data["content_preview"] == ""
    assert data["meta_data"] is None
    assert data["status"] == "rejected"


def test_ids_that_are_no_text_become_text() -> None:
    project, content = uuid.uuid4(), 17
    project_id, data = update_payloads.moderation_update({"id": content, "project_id": project}, "approved", [], 0)
    assert project_id == data["project_id"] == str(project)
    assert data["content_id"] == "17"


def test_a_detached_row_still_shows_its_decision() -> None:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        row = Content(**FIELDS)
        session.add(row)
        session.commit()
        assert row.project_id == "p-1"
        session.expire(row, ["content_data", "meta_data"])
    engine.dispose()
    _, data = update_payloads.moderation_update(row, "approved", [RULE], 1)
    assert (data["content_preview"], data["meta_data"], data["status"]) == ("", None, "approved")


@pytest.mark.parametrize("content", [None, {}, {"project_id": None}, {"project_id": ""}, "text", SimpleNamespace()])
def test_without_a_project_there_is_nowhere_to_send_it(content: object) -> None:
    with pytest.raises(ValueError, match="names no project"):
        update_payloads.moderation_update(content, "approved", [], 0)
    with pytest.raises(ValueError, match="names no project"):
        update_payloads.content_received(content)


class Unprintable:
    """Raises wherever it can."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_metadata_that_json_cannot_say_becomes_text() -> None:
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    day = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
    meta = {
        "when": day,
        "day": day.date(),
        "tags": {"a"},
        "pair": (1, 2),
        "amount": Decimal("1.50"),
        "nan": math.nan,
        "signal": Decimal("sNaN"),
        "huge": 10**400,
        "yes": True,
        "raw": b"raw",
        "kind": Decision.REJECTED,
        "odd": Unprintable(),
        7: "number",
        "cycle": cycle,
        "uuid": uuid.UUID(int=1),
        "half": "\ud800",
    }
    shown = strict(update_payloads.moderation_update({**FIELDS, "meta_data": meta}, "approved", [], 0)[1])["meta_data"]
    assert "self" in shown.pop("cycle")
    assert shown == {
        "when": "2026-01-15T10:30:00+00:00",
        "day": "2026-01-15",
        "tags": ["a"],
        "pair": [1, 2],
        "amount": 1.5,
        "nan": None,
        "signal": None,
        "huge": None,
        "yes": True,
        "raw": "raw",
        "kind": "rejected",
        "odd": "<Unprintable>",
        "7": "number",
        "uuid": str(uuid.UUID(int=1)),
        "half": "?",
    }


class Raising(dict[str, Any]):
    """Fails when it is read, as what a database session has loaded and lost may."""

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no")

    def items(self) -> Any:
        raise RuntimeError("no")

    def __float__(self) -> float:
        raise RuntimeError("no")

    def __str__(self) -> str:
        return "raising"


class Unbound:
    """Is of no class while there is nothing behind it, as a proxy of Flask's outside of a request."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("no")

    def __str__(self) -> str:
        return "unbound"


def test_what_fails_while_it_is_read_does_not_hide_a_decision() -> None:
    def failing() -> Iterator[dict[str, Any]]:
        yield RULE
        raise RuntimeError("no")

    meta = {"a": Raising(), "b": [Unbound()], "c": {"d": Raising()}}
    _, data = update_payloads.moderation_update({**FIELDS, "meta_data": meta}, "flagged", failing(), Raising())
    assert strict(data)["meta_data"] == {"a": "raising", "b": ["unbound"], "c": {"d": "raising"}}
    assert (data["status"], data["results_count"], data["processing_time"]) == ("flagged", 0, 0.0)
    assert update_payloads.moderation_update(FIELDS, Unbound(), Unbound(), Unbound())[1]["status"] == "pending"
    assert update_payloads.rule_update({"id": Unbound()}, Unbound())["action"] == "unbound"
    for nothing in (Raising(), Unbound()):
        with pytest.raises(ValueError, match="an object is needed"):
            update_payloads.stats_update(nothing)


def test_rule_update() -> None:
    data = update_payloads.rule_update({"id": "r", "updated_at": "2026-01-15T10:30:00"}, "created")
    assert data == {
        "action": "created",
        "rule": {"id": "r", "updated_at": "2026-01-15T10:30:00"},
        "timestamp": "2026-01-15T10:30:00",
    }
    data = update_payloads.rule_update(SimpleNamespace(id="r", name="Spam", _sa_instance_state=object()))
    assert data["action"] == "updated"
    assert data["rule"] == {"id": "r", "name": "Spam"}
    assert datetime.fromisoformat(data["timestamp"]).tzinfo is not None


def test_stats_update() -> None:
    assert update_payloads.stats_update({"total": 3, "rate": math.inf}) == {"total": 3, "rate": None}
    assert update_payloads.stats_update(SimpleNamespace(total=3)) == {"total": 3}


@pytest.mark.parametrize("odd", [None, 7, "text", [1]])
def test_statistics_and_rules_are_objects(odd: object) -> None:
    with pytest.raises(ValueError, match="an object is needed"):
        update_payloads.stats_update(odd)
    with pytest.raises(ValueError, match="an object is needed"):
        update_payloads.rule_update(odd)


@pytest.mark.parametrize("event", update_payloads.EVENTS)
def test_valid_data_keeps_its_unknown_keys(event: str) -> None:
    data = {"status": "approved", "extra": {"deep": [1, None]}}
    shaped = update_payloads.validate("p-1", event, data)
    filled_in = {"project_id": "p-1"} if event in ("moderation_update", "content_received") else {}
    assert shaped == {**data, **filled_in}
    assert "project_id" not in data


@pytest.mark.parametrize("named", ["p-1", None])
def test_the_project_is_filled_in(named: str | None) -> None:
    assert update_payloads.validate("p-1", "content_received", {"project_id": named}) == {"project_id": "p-1"}


def test_everything_made_here_is_valid() -> None:
    for event, (project_id, data) in {
        "moderation_update": update_payloads.moderation_update(FIELDS, "approved", [RULE], 1),
        "content_received": update_payloads.content_received(FIELDS),
    }.items():
        assert update_payloads.validate(project_id, event, data) == data


def nested(depth: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for _ in range(depth):
        data = {"in": data}
    return data


@pytest.fixture
def no_collection() -> Iterator[None]:
    """What other tests have left behind is not finalized at the bottom of a deep recursion, where nothing can be."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("event", "data", "message"),
    [
        ("joined_project", {}, "event must be one of moderation_update, content_received, stats_update, rule_update"),
        (None, {}, "event must be one of"),
        (["moderation_update"], {}, "event must be one of"),
        ("stats_update", None, "data must be an object"),
        ("stats_update", [1], "data must be an object"),
        ("stats_update", "text", "data must be an object"),
        ("stats_update", {"rate": math.nan}, "data is not JSON"),
        ("stats_update", {"when": datetime.now(UTC)}, "data is not JSON"),
        ("stats_update", {"half": "\ud83d"}, "data holds a lone surrogate"),
        ("stats_update", nested(100_000), "data is nested too deeply"),
        ("moderation_update", {"status": "spam"}, "status must be one of approved, rejected, flagged, pending"),
        ("content_received", {"status": None}, "status must be one of"),
        ("moderation_update", {"status": ["approved"]}, "status must be one of"),
        ("moderation_update", {"project_id": "p-2"}, "project_id is another project's"),
        ("moderation_update", {"project_id": ""}, "project_id is another project's"),
    ],
)
def test_what_may_not_be_published(event: object, data: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        update_payloads.validate("p-1", event, data)


def test_an_update_to_try_out_a_room_says_that_it_is_one() -> None:
    data = update_payloads.trial_update("p", "flagged", "Ann")
    assert data["content_preview"] == "Test update by Ann: nothing was moderated"
    assert (data["project_id"], data["status"], data["meta_data"]) == ("p", "flagged", {"test": True})
    assert data["content_id"].startswith("test-")
    assert update_payloads.trial_update("p", "flagged", "Ann")["content_id"] != data["content_id"]
