"""Feeds the server bytes that a coverage-guided fuzzer makes up, until something does not hold or the time is over.

    python scripts/fuzz.py --minutes 60
    python scripts/fuzz.py build/fuzz/crash-0123abcd        play a script again that did not hold

``tests/kits/fuzzing.py`` says what has to hold. Needs atheris (``pip install ".[fuzz]"``).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from zlib import crc32

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "fuzz"
"""Where scripts that lead somewhere new are kept for the next time, and those that do not hold."""
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "examples")]

MEASURED = 16
"""Of so many scripts one is measured, as that takes long."""

ENDLESS = 1200
"""Seconds after which a script is taken for one that never ends.

Its work is counted, not timed: on a busy machine a measured one has taken more than a minute."""

WORDS = (
    "GET ", "POST ", " HTTP/1.1\r\n", "Host: x\r\n", "\r\n\r\n", "Content-Length: ", "Transfer-Encoding: chunked\r\n",
    "Connection: Upgrade\r\n", "Upgrade: websocket\r\n", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Protocol: ", "Sec-WebSocket-Extensions: ", "Origin: ", "&sid=id1",
    "/socket.io/?EIO=4&transport=", "polling", "websocket", "2probe", "join_project", "project_id", "last_event_id",
    '{"_placeholder":true,"num":0}', "\x1e", "42[", "451-[", "461-1[", "40/", "41/", "Cookie: session=alice\r\n",
)  # fmt: skip


def main() -> None:
    """Fuzz, or play the script that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", nargs="?", type=Path, help="a script to play again")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to go on (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzer's chance; 0 takes a new one")
    arguments = parser.parse_args()
    if arguments.script is not None:
        from kits.fuzzing import described, play_measured

        data = arguments.script.read_bytes()
        print(described(data))
        play_measured(data)
    else:
        fuzz(arguments.minutes, arguments.seed)


def fuzz(minutes: float, seed: int) -> None:
    """Fuzz; leaves the process, with status 0 when the time is over and another one when something did not hold."""
    try:
        import atheris
    except ModuleNotFoundError:
        sys.exit('fuzz: atheris is not installed: pip install ".[fuzz]"')
    with atheris.instrument_imports(include=["automoderate", "h11", "websockets", "engineio", "socketio"]):
        from kits.fuzzing import play, play_measured, seeds

    def target(script: bytes) -> None:
        # Which scripts are measured depends on their bytes alone, so that what does not hold does so again.
        measure = crc32(script) % MEASURED == 0
        (play_measured if measure else play)(script)

    corpus, words = FOLDER / "corpus", FOLDER / "words"
    corpus.mkdir(parents=True, exist_ok=True)
    for script in seeds():
        (corpus / hashlib.sha1(script, usedforsecurity=False).hexdigest()).write_bytes(script)
    words.write_text("".join(f'"{escaped(word)}"\n' for word in WORDS))
    options = [f"-max_total_time={round(minutes * 60)}", "-max_len=8192", f"-timeout={ENDLESS}", f"-seed={seed}"]
    options += [f"-dict={words}", f"-artifact_prefix={FOLDER}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(corpus), *options], target)
    atheris.Fuzz()


def escaped(word: str) -> str:
    """A word as the fuzzer's dictionary has it."""
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


if __name__ == "__main__":
    main()
