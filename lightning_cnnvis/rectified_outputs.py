"""The modules that hold the rectified outputs of convolutions, found by what a forward pass computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cnnvis.following import Follower


class _Stage(IntEnum):
    """How far the output of a convolution has come."""

    OWN = 0  # the output, or what a batch normalisation makes of it
    PASSED = 1  # normalised in another way, in another shape, beside the outputs of others
    SUM = 2  # with the other branch of a residual block added in place
    RECTIFIED = 3
    RECTIFIED_SUM = 4


_Holder = tuple[str, int]
"""A module that returns a tensor, and how many times it had run in the forward pass by then."""


@dataclass(eq=False)
class _Chain:
    """One convolution's output, and the modules that return it.

    Attributes:
        size: Height and width of the output.
        own: Modules that return it before the rectifier, tensor by tensor, the best name of each first.
        rectified: Those that return it after the rectifier.
    """

    size: tuple[int, ...]
    own: list[list[_Holder]] = field(default_factory=list)
    rectified: list[list[_Holder]] = field(default_factory=list)


@dataclass(eq=False)
class _Place:
    """Where a tensor that depends on the image stands.

    Attributes:
        chains: The convolutions whose output it is; empty if it is something else.
        stage: How far that has come.
        maker: The innermost module that was running.
        holders: The modules that return the tensor: the maker, then the others in the order in which they end.
    """

    chains: tuple[_Chain, ...] = ()
    stage: _Stage = _Stage.PASSED
    maker: str = ""
    holders: list[_Holder] = field(default_factory=list)


class ConvolutionOutputs(Follower[_Place]):  # type: ignore[no-untyped-call]
    """Follows the output of each convolution through a forward pass, up to its rectifier.

    Normalisation and rectifier may be in one module or in two, or functions in a ``forward`` method.

    Args:
        image: The network's input, ``(N, C, H, W)``.

    Examples:
        >>> conv, image = nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8)
        >>> with torch.no_grad(), ConvolutionOutputs(image) as followed:
        ...     followed.begins("block")
        ...     followed.begins("block.conv")
        ...     output = conv(image)
        ...     followed.ends("block.conv", conv, output)
        ...     followed.ends("block", nn.Sequential(conv), output.relu_())
        >>> followed.names({"block": 1, "block.conv": 1})
        ['block']
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__(image, _Place())
        self._chains: list[_Chain] = []
        self._running = [""]
        self._ended: Counter[str] = Counter()

    def begins(self, name: str) -> None:
        """Notes that a module begins; to be called from a forward pre-hook.

        Args:
            name: Dotted name of the module.
        """
        self._running.append(name)

    def ends(self, name: str, module: nn.Module, output: object) -> None:
        """Notes what a module returns; to be called from a forward hook.

        Args:
            name: Dotted name of the module.
            module: The module.
            output: Its output.
        """
        self._running.pop()
        self._ended[name] += 1
        place = self.note_on(output)
        if place is None or not place.chains:
            return
        inside = name == place.maker or all(child == "parametrizations" for child, _ in module.named_children())
        if not inside and place.stage is not _Stage.RECTIFIED:
            return
        if not place.holders:
            for chain in place.chains:
                if place.stage >= _Stage.RECTIFIED:
                    chain.rectified.append(place.holders)
                # a filter that is not a module's, such as that of an antialiased pooling, is not one of the layers
                elif place.stage is _Stage.OWN and (chain.own or isinstance(module, _CONVOLUTIONS)):
                    chain.own.append(place.holders)
        place.holders.insert(0 if name == place.maker else len(place.holders), (name, self._ended[name]))

    def names(self, calls: Mapping[str, int], *, rectified_only: bool = False) -> list[str]:
        """Finds the layer that holds the rectified output of each convolution.

        Args:
            calls: Number of times that each module runs in one forward pass, by name.
            rectified_only: Whether to leave out convolutions whose rectified output no module holds.

        Returns:
            The layers, each once, in the order of their convolutions: the rectifier, or the innermost module around it.
            Modules that run once come before one call of a module that runs several times, ``relu@2``. Where no module
            holds the rectified output, it is the last one before the rectifier.
        """
        found: dict[str, None] = {}
        for chain in self._chains:
            for tensors in (chain.rectified, [] if rectified_only else chain.own[::-1]):
                holders = [holder for tensor in tensors for holder in tensor]
                if holders:
                    name, call = next((holder for holder in holders if calls[holder[0]] == 1), holders[0])
                    found[name if calls[name] == 1 else f"{name}@{call}"] = None
                    break
        return list(found)

    def pass_on(self, func: Any, args: Sequence[Any], read: list[_Place], result: Tensor) -> _Place:
        """Finds the place of the result of an operation."""
        name, maker = func.overloadpacket.__name__.removesuffix("_"), self._running[-1]
        if name == "convolution" and not args[6]:  # not transposed
            self._chains.append(_Chain(tuple(result.shape[2:])))
            return _Place((self._chains[-1],), _Stage.OWN, maker)
        first, *others = read
        if func.overloadpacket is _aten.add_ and any(other.chains != first.chains for other in others):
            chains, stage = first.chains, _Stage.SUM if first.stage < _Stage.RECTIFIED else None
        else:
            chains = _common(read, joins=name == "cat")
            stage = _next_stage(name, args, max(place.stage for place in read))
        is_rectified = stage is not None and stage >= _Stage.RECTIFIED
        if stage is None or (is_rectified and any(chain.size != result.shape[2:] for chain in chains)):
            return _Place()
        return _Place(chains, stage, maker)


def _common(read: list[_Place], *, joins: bool) -> tuple[_Chain, ...]:
    """The convolutions whose outputs an operation works on, as long as it works on nothing else."""
    if joins and all(place.chains for place in read):
        return tuple(chain for place in read for chain in place.chains)
    return read[0].chains if all(place.chains == read[0].chains for place in read) else ()


def _next_stage(name: str, args: Sequence[Any], stage: _Stage) -> _Stage | None:
    """How far the output of a convolution has come after an operation; None if it is something else then."""
    if name in _COPIES:
        return stage
    if stage >= _Stage.RECTIFIED:
        # multiplied by a positive number, it stays rectified
        scaled = name in ("mul", "div") and not isinstance(args[1], Tensor) and args[1] > 0
        return stage if scaled else None
    if name in _RECTIFIERS and _RECTIFIERS[name](*args[1:]):
        return _Stage.RECTIFIED_SUM if stage is _Stage.SUM else _Stage.RECTIFIED
    if "batch_norm" in name:
        return stage
    return _Stage.PASSED if name in _PASSING and stage is not _Stage.SUM else None


_aten = torch.ops.aten

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

_COPIES = {"_to_copy", "alias", "clone", "detach", "native_dropout"}

# what normalisations are made of
_PASSING = {
    "_fused_rms_norm", "_unsafe_view", "add", "addcmul", "cat", "div", "expand", "linalg_vector_norm", "mean", "mul",
    "native_group_norm", "native_layer_norm", "permute", "pow", "reciprocal", "rsqrt", "rsub", "split",
    "split_with_sizes", "sqrt", "squeeze", "std", "std_mean", "sub", "sum", "transpose", "unsqueeze", "var", "var_mean",
    "view",
}  # fmt: skip

# rectifiers, each with the check of its further arguments
_RECTIFIERS: dict[str, Any] = {
    "relu": lambda: True,
    "leaky_relu": lambda *_: True,
    "_prelu_kernel": lambda *_: True,
    "hardtanh": lambda low=-1, *_: low == 0,
    "clamp": lambda low=None, *_: not isinstance(low, Tensor) and low == 0,
    "clamp_min": lambda low: not isinstance(low, Tensor) and low == 0,
    "threshold": lambda threshold, value: threshold == value == 0,
}
