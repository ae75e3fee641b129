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


def build(name: str) -> Path:
    """The program made from ``name.c``, compiled unless that was done before. Raises :exc:`CannotCompile`."""
    cc = compiler()
    if cc is None:
        raise CannotCompile(NO_COMPILER)
    source = Path(__file__).with_name(f"{name}.c")
    digest = hashlib.sha256(" ".join((cc, *FLAGS)).encode() + source.read_bytes()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "automoderate-benchmarks"
    program = folder / f"{name}-{digest}"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{name}-{digest}.{os.getpid()}"
        done = subprocess.run([cc, *FLAGS, "-o", unfinished, source], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotCompile(f"{cc} cannot compile {source.name}: {' '.join(done.stderr.split())[:300]}")
        unfinished.replace(program)  # at once, for runs at the same time
    return program
