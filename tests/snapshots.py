"""Everything that a visualisation could disturb, noted down by other means than the package's own."""

from __future__ import annotations

import gc
import random
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack


def _value(tensor: Tensor | None) -> object:
    """The tensor's identity and bytes, and for weights its version: nobody may have written to them."""
    if tensor is None:
        return None
    version = tensor._version if isinstance(tensor, nn.Parameter) else None
    return (
        id(tensor),
        version,
        tensor.requires_grad,
        str(tensor.dtype),
        tensor.detach().cpu().double().numpy().tobytes(),
    )


def _plain(value: object) -> object:
    """An attribute's identity, and what is in it."""
    if isinstance(value, Tensor):
        return _value(value)
    inside = list(value.values()) if isinstance(value, dict) else value
    return id(value), [id(v) for v in inside] if isinstance(inside, list) else None


def of_model(model: nn.Module) -> dict[str, Any]:
    """What a module holds: modes, weights, gradients, buffers, hooks, attributes."""
    noted: dict[str, Any] = {}
    for name, module in model.named_modules():
        noted |= {f"{name}: {key}": _plain(value) for key, value in vars(module).items() if key not in _TABLES}
        for table in _TABLES & vars(module).keys():
            entries = vars(module)[table]
            if table not in {"_parameters", "_buffers"}:
                kept = [(key, id(value)) for key, value in entries.items()] if isinstance(entries, dict) else entries
                noted[f"{name}: {table}"] = str(kept)
        noted |= {f"{name}: buffer {key}": _value(buffer) for key, buffer in module._buffers.items()}
        for key, parameter in module._parameters.items():
            noted[f"{name}: parameter {key}"] = _value(parameter)
            if parameter is not None:
                noted[f"{name}: gradient of {key}"] = _value(parameter.grad)
                hooks = parameter._backward_hooks, parameter._post_accumulate_grad_hooks
                noted[f"{name}: hooks of {key}"] = str(hooks)
    return noted


_TABLES = {name for name, value in vars(nn.Module()).items() if isinstance(value, dict | set)}


def of_process() -> dict[str, Any]:
    """What the process holds: random generators, switches, modes, hooks on every module."""
    cudnn = torch.backends.cudnn
    return {
        "python rng": random.getstate(),
        "numpy rng": str(np.random.get_state()),  # noqa: NPY002
        "torch rng": torch.get_rng_state().tolist(),
        "cuda rng": [state.tolist() for state in torch.cuda.get_rng_state_all()],
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "autocast": {
            kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")
        },
        "autocast cache": torch.is_autocast_cache_enabled(),
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        "fp32 precision": (torch.backends.cuda.matmul.fp32_precision, torch.get_float32_matmul_precision()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "compile stance": str(torch._dynamo.eval_frame._stance),
        "dispatch modes": len(_get_current_dispatch_mode_stack()),
        "function modes": torch._C._len_torch_function_stack(),
        "saved tensor hooks": torch._C._autograd._top_saved_tensors_default_hooks(True),
        "hooks on every module": {
            name: len(table)
            for name, table in vars(torch_module).items()
            if name.startswith("_global_") and isinstance(table, dict)
        },
        "warning filters": list(warnings.filters),
    }


def tensors_alive() -> int:
    """How many tensors there are."""
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is not as it was."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
