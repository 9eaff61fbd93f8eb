"""MPS where there is none: tensors that compute on the CPU, say that they are on MPS, and refuse what MPS refuses."""

import contextlib

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

HERE = torch.device("mps", 0)
# torch lets these take CPU tensors next to those of a GPU
MIXED = {"_to_copy", "copy_", "index", "index_put", "index_put_", "_index_put_impl_"}


class OnMps(torch.Tensor):
    """A tensor on the pretended device; `inner` holds its values."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner):
        # "meta", so that torch sees another device than the CPU and knows how to differentiate
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            device="meta",
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
        )
        made.inner = inner
        return made

    @property
    def device(self):
        return HERE

    @property
    def is_meta(self):
        return False

    def __reduce_ex__(self, protocol):
        return self.inner.__reduce_ex__(protocol)  # a state is read onto the CPU

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Machine(TorchDispatchMode):
    """Moves tensors to the device and makes them there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Numbered(TorchFunctionMode):
    """Gives the device its number, which torch would ask a driver for, and lists values, which it refuses here."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.tolist and isinstance(args[0], OnMps):
            return args[0].inner.tolist()
        named = {name: _numbered(value) for name, value in (kwargs or {}).items()}
        return func(*map(_numbered, args), **named)


@contextlib.contextmanager
def pretended_mps(monkeypatch):
    """A block in which torch has MPS."""
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.backends.mps.is_macos_or_newer", lambda *version: True)
    monkeypatch.setattr("torch.accelerator.synchronize", lambda device: None)
    monkeypatch.setattr("torch.inference_mode", torch.no_grad)  # which such tensors do not know
    with _Machine(), _Numbered():
        yield


def _run(func, args, kwargs):
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    there = any(isinstance(one, OnMps) for one in tensors)
    asked = kwargs.get("device")
    name = func._schema.name.partition("::")[2]
    elsewhere = any(not isinstance(one, OnMps) and one.dim() for one in tensors)
    if there and elsewhere and name not in MIXED:
        raise RuntimeError(f"{name}: tensors are on mps:0 and cpu")
    if kwargs.get("non_blocking") and (there or _is_there(asked)):
        raise RuntimeError(f"{name}: a copy that does not wait reads memory that may be freed")
    if asked is not None:
        there, kwargs = _is_there(asked), {**kwargs, "device": "cpu"}
    inner = tree_map(lambda one: one.inner if isinstance(one, OnMps) else one, (args, kwargs))
    result = func(*inner[0], **inner[1])
    if not there:
        return result
    if isinstance(result, torch.Tensor):
        for place, one in zip(func._schema.arguments, args):
            if place.alias_info and place.alias_info.is_write:
                return one
    return tree_map(_there, result)


def _numbered(value):
    return HERE if isinstance(value, str | torch.device) and str(value) == "mps" else value


def _is_there(device):
    return device is not None and torch.device(device).type in ("mps", "meta")


def _there(value):
    if not isinstance(value, torch.Tensor):
        return value
    if value.dtype == torch.float64:
        raise TypeError("MPS has no float64")
    return OnMps(value)
