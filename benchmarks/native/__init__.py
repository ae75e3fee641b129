"""The parts in C, compiled where they are used."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

FLAGS = ("-std=c11", "-O2", "-Wall")
NO_COMPILER = "no C compiler; install one (apt install gcc), or name it in CC"


class CannotCompile(RuntimeError):
    """The compiler refused; the message is one line."""


def compiler() -> str | None:
    """The C compiler's path: the one the environment names in ``CC``, or ``cc``."""
    return shutil.which(os.environ.get("CC", "cc"))


def missing() -> str | None:
    """Why nothing can be compiled here, or None."""
    return None if compiler() else NO_COMPILER


def versions() -> dict[str, str]:
    """The compiler's version."""
    cc = compiler()
    if cc is None:
        return {}
    return {"cc": subprocess.run([cc, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]}


def build(name: str, *flags: str) -> Path:
    """What is made from ``name.c``, or from all of the folder ``name``, compiled unless that was done before.

    Raises :exc:`CannotCompile`.
    """
    cc = compiler()
    if cc is None:
        raise CannotCompile(NO_COMPILER)
    place = Path(__file__).with_name(name)
    sources = sorted(place.glob("*.c")) if place.is_dir() else [place.with_suffix(".c")]
    command = [cc, *FLAGS, *flags]
    read = [source.read_bytes() for source in (*sources, *place.glob("*.h"))]
    digest = hashlib.sha256(b"\0".join([" ".join(command).encode(), *read])).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "automoderate-benchmarks"
    program = folder / f"{name}-{digest}"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{name}-{digest}.{os.getpid()}"
        done = subprocess.run([*command, "-o", unfinished, *sources], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotCompile(f"{cc} cannot compile {name}: {' '.join(done.stderr.split())[:300]}")
        unfinished.replace(program)  # at once, for runs at the same time
    return program
