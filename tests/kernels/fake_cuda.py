"""Launches on a GPU, recorded without one: fake tensors on "cuda", up to the point where Triton would compile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

from fastreg.kernels.registry import Variant
from tests.kernels import aot

aten = torch.ops.aten


class Launch(NamedTuple):
    """One launch: the kernel's name, and per argument its constant or type ("/16": known to be a multiple of 16)."""

    kernel: str
    request: dict[str, Any]


class Driver:
    """The driver functions that Triton's launcher calls before it compiles. No real device has this number."""

    def get_current_device(self) -> int:
        return 77

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def compile_request(kernel, signature, constants, attributes) -> dict[str, Any]:
    """The request to the compiler, without arguments that are None (pointers that no switch reads)."""
    request = {}
    for i, name in enumerate(kernel.arg_names):
        if (i,) not in constants:
            request[name] = signature[name] + ("/16" if attributes.get((i,)) else "")
        elif constants[i,] is not None:
            request[name] = constants[i,]
    return request


def record_launches(monkeypatch) -> list[Launch]:
    """A list that every launch is appended to. Triton's own launcher runs up to its compiler."""
    launches: list[Launch] = []
    run = jit.JITFunction.run

    def record(kernel, *args, grid, warmup, **options):
        assert all(n >= 1 for n in grid), f"{kernel.__name__} has the empty grid {grid}"
        for value in (*args, *options.values()):
            assert not isinstance(value, torch.Tensor) or value.is_cuda, f"{kernel.__name__} was given host memory"
        return run(kernel, *args, grid=grid, warmup=True, **options)

    def stop(kernel, key, signature, device, constants, options, attributes, warmup):
        request = compile_request(kernel, signature, constants, attributes)
        request |= {"warps": options.num_warps, "fusion": options.enable_fp_fusion}
        launches.append(Launch(kernel.__name__, request))

    monkeypatch.setattr(jit.JITFunction, "run", record)
    monkeypatch.setattr(jit.JITFunction, "_do_compile", stop)
    monkeypatch.setattr(FakeTensor, "data_ptr", lambda self: 0)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(driver, "_active", Driver())
    return launches


def fake(values, device: str = "cuda:0"):
    """The same structure with fake tensors on ``device``, of the same strides."""

    def one(t: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=device)

    return tree_map_only(torch.Tensor, one, values)


def assert_registered(variants: Iterable[Variant], launches: Iterable[Launch]) -> None:
    """Each launch asks the compiler for one of the registry's ``variants`` of that kernel."""
    registered: dict[str, list[dict[str, Any]]] = {}
    for variant in variants:
        source = aot.source(variant)
        request = compile_request(variant.kernel, source.signature, source.constants, source.attrs)
        request |= {"warps": variant.warps, "fusion": variant.fusion}
        registered.setdefault(variant.kernel.__name__, []).append(request)
    for kernel, request in launches:
        unlike = [{k: (v.get(k), w) for k, w in request.items() if v.get(k) != w} for v in registered[kernel]]
        assert {} in unlike, f"{kernel}, (variant, launch): {unlike}"


class Watch(TorchDispatchMode):
    """Raises where the host would wait for the device, or an operation works on both."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (aten._local_scalar_dense.default, aten.nonzero.default), "a value was read"
        out = func(*args, **(kwargs or {}))
        seen = {leaf.device.type for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)}
        sent = func is aten._to_copy.default and out.is_cuda and (kwargs or {}).get("non_blocking")
        assert sent or "cuda" not in seen or seen == {"cuda"}, f"{func} works on {seen}"
        return out


def getitem(x: torch.Tensor, places) -> torch.Tensor:
    """``x[places]`` by operations: Python's brackets ask a torch built without CUDA for the device."""
    places = places if isinstance(places, tuple) else (places,)
    axis = 0
    for i, place in enumerate(places):
        if place is Ellipsis:
            axis = x.dim() - sum(p is not None for p in places[i + 1 :])
        elif place is None:
            x, axis = x.unsqueeze(axis), axis + 1
        elif isinstance(place, int):
            x = x.select(axis, place)
        else:
            x, axis = aten.slice(x, axis, place.start, place.stop, place.step or 1), axis + 1
    return x
