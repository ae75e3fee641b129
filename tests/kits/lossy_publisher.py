"""A publisher that loses the second update of every room on its way to Redis."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from benchmarks import publisher
from benchmarks.under_test import Updates


class LossyUpdates(Updates):
    def next(self, rooms: int) -> tuple[str, dict[str, Any]]:
        project_id, data = super().next(rooms)
        return super().next(rooms) if data["meta_data"]["seq"] == 1 else (project_id, data)


if __name__ == "__main__":
    with patch.object(publisher, "Updates", LossyUpdates):
        publisher.main()
