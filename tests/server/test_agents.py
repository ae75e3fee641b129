"""What clients call themselves, as operators count them."""

from __future__ import annotations

import pytest

from automoderate.server.agents import client_name

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} Chrome/126.0.0.0 Safari/537.36", "Chrome 126"),
        (f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} HeadlessChrome/126.0.0.0 Safari/537.36", "Chrome 126"),
        (f"Mozilla/5.0 (Windows NT 10.0) {WEBKIT} Chrome/126.0.0.0 Safari/537.36 Edg/125.0.0.0", "Edge 125"),
        (f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} Chrome/126.0.0.0 Safari/537.36 OPR/111.0", "Opera 111"),
        (f"Mozilla/5.0 (Linux; Android 14) {WEBKIT} SamsungBrowser/25.0 Chrome/121.0", "Samsung Internet 25"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox 128"),
        ("Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15", "Safari 17"),
        (
            "Mozilla/5.0 (iPhone) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
            "Safari 17",
        ),
        ("python-requests/2.32.3", "python-requests/2.32.3"),
        ("Python/3.11 aiohttp/3.9.5", "aiohttp/3.9.5"),
        ("Python/3.11", "Python/3.11"),
        ("node-XMLHttpRequest", "node-XMLHttpRequest"),
        ("okhttp/4.12.0 something", "okhttp/4.12.0"),
        ("x" * 200, "x" * 60),
        ("Python/3.11 " + "x" * 200, "x" * 60),
        ("", "unnamed"),
        ("  \t ", "unnamed"),
    ],
)
def test_names(agent: str, name: str) -> None:
    assert client_name(agent) == name
