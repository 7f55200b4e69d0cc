import logging

import pytest

from modelport.server.seldom_log import SeldomLog
from modelport.testing.clock import ManualClock


def test_lines_of_one_kind_come_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = ManualClock(10**12)
    seldom = SeldomLog(logging.getLogger("modelport.test"), clock)
    for second in range(130):
        seldom.info("a", f"a at {second}")
        if second == 5:
            seldom.info("b", "b")
        clock.advance(1)
    assert [record.getMessage() for record in caplog.records] == [
        "a at 0",
        "b",
        "a at 60 (and 59 more of these since)",
        "a at 120 (and 59 more of these since)",
    ]
