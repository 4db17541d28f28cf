"""A failed CUDA graph capture leaves stream and allocator as they were, on a stand-in that records the calls."""

import pytest
import torch

from fastreg import cuda_graphs
from fastreg.evaluation.cuda_graph import CudaGraphForward


class Device:
    """CUDA as ``capture`` sees it. ``fails``: where the capture is invalidated, as a model that waits does it."""

    def __init__(self, fails=None, ends_the_allocation=False):
        self.fails, self.ends_the_allocation = fails, ends_the_allocation
        self.calls, self.current, self.capturing, self.allocating, self.pool_owned = [], "default", False, False, False

    def install(self, monkeypatch):
        cuda, device = torch.cuda, self

        class Stream:
            def wait_stream(self, other):
                device.calls.append(("wait", self is device.current))

        class Graph:
            def capture_begin(self, pool, capture_error_mode):
                device.calls.append(("begin", capture_error_mode))
                if device.fails == "begin":
                    raise RuntimeError("no capture")
                device.capturing = device.allocating = device.pool_owned = True

            def capture_end(self):
                device.calls.append(("end",))
                assert device.current is device.captured_on
                device.capturing = False
                if device.fails in ("inside", "end"):
                    if device.ends_the_allocation:  # as PyTorch does since 2026
                        device.allocating = device.pool_owned = False
                    raise RuntimeError("operation failed due to a previous error during capture")
                device.allocating = False

            def replay(self):
                device.calls.append(("replay",))

        def set_stream(stream):
            device.current = stream

        def end(index, pool):
            if not device.allocating:
                raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
            device.allocating = False

        def release(index, pool):
            assert device.pool_owned, "released twice: PyTorch would abort"
            device.pool_owned = False

        self.before = self.current = Stream()
        monkeypatch.setattr(cuda, "Stream", lambda: setattr(device, "captured_on", Stream()) or device.captured_on)
        monkeypatch.setattr(cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(cuda, "graph_pool_handle", lambda: (0, 1))
        monkeypatch.setattr(cuda, "current_stream", lambda: device.current)
        monkeypatch.setattr(cuda, "current_device", lambda: 0)
        monkeypatch.setattr(cuda, "set_stream", set_stream)
        monkeypatch.setattr(cuda, "synchronize", lambda: None)
        monkeypatch.setattr(cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", release, raising=False)
        return self

    def model(self, x):
        self.calls.append(("call", self.capturing))
        if self.capturing and self.fails == "inside":
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return 2 * x


def test_a_capture_warms_up_and_is_replayed(monkeypatch):
    device = Device().install(monkeypatch)
    replay, output = cuda_graphs.capture(device.model, torch.ones(2))
    assert torch.equal(output, 2 * torch.ones(2))
    assert [call for call in device.calls if call[0] == "call"] == [("call", False)] * 3 + [("call", True)]
    assert ("begin", "thread_local") in device.calls  # a loader's threads may pin memory meanwhile
    assert device.current is device.before
    replay()
    assert device.calls[-1] == ("replay",)
    assert device.pool_owned  # the graph owns it


@pytest.mark.parametrize("ends_the_allocation", [False, True], ids=["torch before 2026", "torch since"])
@pytest.mark.parametrize("fails", ["begin", "inside", "end"])
def test_a_failed_capture_leaves_everything_as_it_was(fails, ends_the_allocation, monkeypatch):
    device = Device(fails, ends_the_allocation).install(monkeypatch)
    messages = {"begin": "no capture", "inside": "not permitted when stream is capturing", "end": "a previous error"}
    with pytest.raises(RuntimeError, match=messages[fails]):
        cuda_graphs.capture(device.model, torch.ones(2))
    assert device.current is device.before
    assert (device.capturing, device.allocating, device.pool_owned) == (False, False, False)


def test_a_failed_warm_up_begins_no_capture(monkeypatch):
    device = Device().install(monkeypatch)

    def broken(x):
        raise ValueError("a model may raise anything")

    with pytest.raises(ValueError, match="a model may raise anything"):
        cuda_graphs.capture(broken, torch.ones(2))
    assert device.current is device.before
    assert not any(call[0] == "begin" for call in device.calls)


def test_a_model_that_cannot_be_captured_is_called(monkeypatch):
    device = Device("inside").install(monkeypatch)
    forward, x = CudaGraphForward(device.model, 2), torch.ones(2, 3)
    for _ in range(3):
        assert torch.equal(forward(x), 2 * x)
    assert forward.refused == "RuntimeError: operation not permitted when stream is capturing"
    assert [call[0] for call in device.calls].count("begin") == 1  # it is not tried again
    assert not device.allocating
