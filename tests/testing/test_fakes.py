import asyncio

import numpy as np
import pytest

from modelport.dtypes import BF16
from modelport.errors import Cancelled, ModelFailed
from modelport.messages import Response
from modelport.runtimes.base import Host, Work
from modelport.testing.fakes import FakeHost, FakeWork, work_of


def test_fakes_keep_the_contracts() -> None:
    work: Work = work_of({})
    host: Host = FakeHost()
    host.log("info", "hello", model="tried")
    assert isinstance(work, FakeWork)
    assert isinstance(host, FakeHost)
    assert host.lines == [("info", "hello", "tried")]


def test_arrays_become_read_only_and_the_given_ones_do_not() -> None:
    array = np.zeros(2, np.float32)
    work = work_of({"x": array}, outputs=["y"], parameters={"a": 1})
    seen = work.request.payload.tensors[0].array
    assert not seen.flags.writeable
    assert array.flags.writeable
    assert work.request.outputs == ["y"]
    assert work.request.parameters == {"a": 1}


def test_datatype_is_told_where_the_dtype_is_not_enough() -> None:
    work = work_of({"x": np.zeros(2, np.uint16)}, datatypes={"x": BF16})
    assert work.request.payload.tensors[0].datatype is BF16


def test_responses_are_remembered_until_the_end() -> None:
    work = work_of({})
    response = Response([])
    work.send(response, final=False)
    work.send(None, final=True)
    assert work.sent == [response, None]
    assert work.responses == [response]
    with pytest.raises(ModelFailed, match="Response sender has been closed"):
        work.send(response, final=False)


def test_nobody_waits_after_a_cancel() -> None:
    work = work_of({})
    work.cancels_after = 1
    work.send(Response([]), final=False)
    assert work.is_cancelled
    with pytest.raises(Cancelled):
        work.send(Response([]), final=False)
    work.send(None, final=True)
    assert work.is_ended


def test_waiting_for_the_reader_is_counted() -> None:
    work = work_of({})
    asyncio.run(work.drained())
    assert work.drains == 1
