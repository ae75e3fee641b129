"""``automoderate publish``: send one update to the people who watch a project, from a shell or a script."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import click

from automoderate import update_payloads
from automoderate.cli.common import Unavailable, WrongUsage
from automoderate.cli.running import DEFAULT_URL
from automoderate.notifier.http import PublishingApi, Refused, Unreachable, check_api_key


@click.command(short_help="Publish one update to the people who watch a project.")
@click.argument("project_id")
@click.option(
    "--event",
    type=click.Choice(update_payloads.EVENTS),
    default="moderation_update",
    show_default=True,
    help="What to publish.",
)
@click.option("--status", type=click.Choice(update_payloads.STATUSES), help="What was decided.  [default: approved]")
@click.option("--text", help="The content; its first 100 characters are shown.")
@click.option("--content-id", help="The content's id.  [default: a new one]")
@click.option("--type", "content_type", help="The kind of content.  [default: text]")
@click.option(
    "--data",
    metavar="JSON|@FILE|-",
    help="The update's data as a JSON object, from a file or from standard input. Other options win over it.",
)
@click.option("--url", envvar="AUTOMODERATE_URL", default=DEFAULT_URL, show_default=True, help="Where the server is.")
@click.option("--api-key", envvar="AUTOMODERATE_API_KEY", help="An API key of the project (am_…).")
def publish(
    project_id: str,
    event: str,
    status: str | None,
    text: str | None,
    content_id: str | None,
    content_type: str | None,
    data: str | None,
    url: str,
    api_key: str | None,
) -> None:
    """Publish one update to the people who watch PROJECT_ID and print its event id.

    The key may come from AUTOMODERATE_API_KEY and the address from AUTOMODERATE_URL, which keeps the key out of the
    shell's history. Exit status: 0 published, 1 refused by the server, 2 wrong usage, 3 server cannot be reached.

    \b
    automoderate publish 3f0c… --status rejected --text "Buy now!"
    automoderate publish 3f0c… --event stats_update --data '{"total": 42}'
    """
    about_content = {"status": status, "text": text, "content_id": content_id, "content_type": content_type}
    given = {name: value for name, value in about_content.items() if value is not None}
    try:
        if not project_id:
            raise ValueError("the project id is empty; the project's page shows it")
        if not project_id.isprintable():
            raise ValueError("the project id is no text; the project's page shows it")
        shaped = _shape(project_id, event, {} if data is None else _read(data), given, has_data=data is not None)
        event_id = _send(url, api_key, project_id, event, shaped)
    except ValueError as error:
        raise WrongUsage(str(error)) from None
    except Unreachable as error:
        raise Unavailable(f"{error}; is the server running, and is --url right?") from None
    except Refused as error:
        raise click.ClickException(str(error)) from None
    click.echo(event_id)


def _read(data: str) -> dict[str, Any]:
    """The object that ``--data`` gives or points to."""
    where = "--data"
    try:
        if data == "-":
            where = "standard input"
            data = sys.stdin.buffer.read().decode()
        elif data.startswith("@"):
            where = data[1:]
            data = Path(where).read_text("utf-8")
        parsed = json.loads(data)
    except OSError as error:
        raise ValueError(f"cannot read {where}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{where} is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{where} is not JSON: it is nested too deeply") from None
    if not isinstance(parsed, dict):
        raise ValueError(f'{where} must be a JSON object, like {{"total": 42}}')  # noqa: TRY004 - a user's mistake
    return parsed


def _shape(
    project_id: str, event: str, data: dict[str, Any], given: dict[str, str], *, has_data: bool
) -> dict[str, Any]:
    """The data to publish: defaults, then what ``--data`` says, then the options."""
    if event in ("stats_update", "rule_update"):
        if given:
            raise ValueError(f"--status, --text, --content-id and --type do not go with {event}; use --data")
        if not has_data:
            raise ValueError(f"{event} needs --data, for example --data '{{\"total\": 42}}'")
        return update_payloads.validate(project_id, event, data)
    content = {
        "id": given.get("content_id", str(uuid.uuid4())),
        "project_id": project_id,
        "content_type": given.get("content_type", "text"),
        "content_data": given.get("text", ""),
    }
    if event == "content_received":
        _, shaped = update_payloads.content_received(content)
    else:
        _, shaped = update_payloads.moderation_update(content, "approved", [{"moderator_type": "manual"}], 0.0)
    shaped.update(data)
    for option, key in (("status", "status"), ("content_id", "content_id"), ("content_type", "content_type")):
        if option in given:
            shaped[key] = given[option]
    if "text" in given:
        shaped["content_preview"] = update_payloads.preview(given["text"])
    return update_payloads.validate(project_id, event, shaped)


def _send(url: str, api_key: str | None, project_id: str, event: str, data: dict[str, Any]) -> str:
    if not api_key:
        raise ValueError("an API key of the project is needed: --api-key am_… or AUTOMODERATE_API_KEY")
    with PublishingApi(url) as api:
        return api.publish(project_id, event, data, check_api_key(api_key))
