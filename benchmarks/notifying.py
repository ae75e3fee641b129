"""A pipeline that hands a burst of updates to ``WebSocketNotifier(url=…)``: started by :mod:`benchmarks.outside`.

    python -m benchmarks.notifying [--source PATH] URL API_KEY PROJECT_ID UPDATES CONFIG

says ``{"ready": true}``, waits for a line, hands over as many updates as it can as quickly as it can, and says what
became of them when the notifier has sent the last one.
"""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

from benchmarks.ours import use_checkout
from benchmarks.under_test import Config, say

CLOSING = 60.0  # seconds for what is queued


def main() -> None:
    """Wait, and send one burst."""
    url, key, project_id, updates, config = use_checkout(sys.argv[1:])
    from automoderate.notifier import WebSocketNotifier

    template = Config.load(config).template
    notifier = WebSocketNotifier(url=url, api_key=key)
    results = [SimpleNamespace(moderator_type="rule", rule_name=template["rule_name"])]
    say({"ready": True})
    sys.stdin.readline()
    begin = time.monotonic()
    for seq in range(int(updates)):
        content = SimpleNamespace(
            id=template["content_id"], project_id=project_id, content_type="text",
            content_data=template["content_preview"],
            meta_data={**template["meta_data"], "seq": seq, "sent": time.monotonic_ns()},
        )  # fmt: skip
        notifier.send_update_async(content, "rejected", results, template["processing_time"])
    handed = time.monotonic() - begin
    notifier.close(CLOSING)
    say({"handed": handed, "sent": notifier.sent, "dropped": notifier.dropped, "failed": notifier.failed})
    sys.stdin.read()


if __name__ == "__main__":
    main()
