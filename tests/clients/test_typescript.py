"""The types of the events, with those of the newest socket.io-client, as a dashboard's compiler sees them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from test_docs import blocks

from automoderate import contract
from kits import PATIENCE, ROOT

WRONG = """\
import { io, type Socket } from "socket.io-client";
import type { ClientToServerEvents, LeaveAnswer, ServerToClientEvents } from "./automoderate";

const socket: Socket<ServerToClientEvents, ClientToServerEvents> = io();

socket.on("moderation_updates", () => {}); // wrong: no such event
socket.on("moderation_update", (update) => console.log(update.state)); // wrong: no such key
socket.on("moderation_update", (update) => update.status === "allowed"); // wrong: no such status
socket.on("moderation_update", ({ rule_name }) => rule_name.length); // wrong: it may be missing
socket.on("error", ({ code }) => code === "forbidden"); // wrong: no such code
socket.on("presence_change", ({ left }) => left[0].username); // wrong: of those who left the id is known
socket.emit("join", { project_id: "p" }); // wrong: no such event
socket.emit("join_project", "p"); // wrong: an object
socket.emit("join_project", {}); // wrong: without a project
socket.emit("join_project", { project_id: "p", statuses: ["open"] }); // wrong: no such status
socket.emit("join_project", { project_id: "p" }, (answer) => answer.room); // wrong: it may be an error
socket.emit("looking_at", { project_id: "p" }); // wrong: at what
socket.emit("moderation_update", { project_id: "p" }); // wrong: the server's
socket.timeout(1000).emit("leave_project", { project_id: "p" }, (_late, answer) => answer.room); // wrong: left
export async function join() {
  const answer: LeaveAnswer = await socket.emitWithAck("leave_project", { project_id: "p" });
  return answer.room; // wrong: that is no longer there
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dashboard's folder: the client is installed, and the types are saved as the documentation says."""
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    (tmp_path / "automoderate.d.ts").write_text(contract.typescript())
    return tmp_path


def test_a_right_program_compiles_and_each_mistake_is_found(folder: Path) -> None:
    (right,) = blocks(ROOT / "docs" / "client-reference.md", "ts")
    assert 'from "./automoderate"' in right
    (folder / "right.ts").write_text(right)
    (folder / "wrong.ts").write_text(WRONG)
    options = ["--strict", "--noEmit", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler",
               "--skipDefaultLibCheck", "--types", "json-schema"]  # fmt: skip
    compiler = ROOT / "node_modules" / "typescript" / "bin" / "tsc"
    run = subprocess.run(
        ["node", compiler, *options, "--pretty", "false", "right.ts", "wrong.ts"],
        cwd=folder, capture_output=True, text=True, timeout=3 * PATIENCE, check=False,
    )  # fmt: skip
    found = {(file, int(line)) for file, line in re.findall(r"^([\w./-]+)\((\d+),", run.stdout, re.MULTILINE)}
    wrong = {("wrong.ts", number) for number, line in enumerate(WRONG.splitlines(), 1) if "// wrong" in line}
    assert found == wrong, run.stdout
