"""Published networks, by layer name, with random weights: exact on windows, or refused by name."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from lightning_cnnvis.functional.deconvnet.projection import plan_windows, project, project_windows
from lightning_cnnvis.functional.deconvnet.rules import UnsupportedOperationError
from lightning_cnnvis.functional.deconvnet.windows import Windows, cut
from lightning_cnnvis.isolation import isolated
from lightning_cnnvis.layers import activations


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name.startswith("timm."):
        timm = pytest.importorskip("timm")
        net: nn.Module = timm.create_model(name.removeprefix("timm."), pretrained=False)
    else:
        options = {"init_weights": False} if name == "googlenet" else {}
        net = getattr(torchvision.models, name)(weights=None, **options)
    # statistics and shifts as after some training, so that no unit is the same everywhere
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    return net.eval()


def relative_error(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-300))


@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [
        ("alexnet", "features.7", (95, 127)),
        ("resnet18", "layer2.0", (64, 96)),
        ("squeezenet1_1", "features.7", (96, 80)),
        ("googlenet", "inception3b.branch3", (96, 112)),
        ("mobilenet_v2", "features.5", (64, 80)),
        ("shufflenet_v2_x0_5", "stage2.1", (64, 96)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("vgg11", "features.12", (64, 96)),
                ("resnext50_32x4d", "layer1.1", (64, 64)),
                ("densenet121", "features.denseblock1", (64, 96)),
                ("regnet_x_400mf", "trunk_output.block2", (64, 64)),
                ("mnasnet0_5", "layers.9", (64, 64)),
                ("timm.resnet18", "layer2.0", (64, 96)),
                ("timm.regnetx_002", "s2", (64, 64)),
                ("timm.repvgg_a0", "stages.1", (64, 64)),
                ("timm.dla34", "level3", (64, 64)),
                ("timm.vgg11_bn", "features.10", (64, 64)),
                ("timm.hrnet_w18_small", "stage2.0.branches.1", (64, 64)),
            )
        ),
    ],
)
def test_windows_equal_whole_images(name, layer, size):
    net = network(name).double()
    images = torch.randn(3, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with isolated(net):
        plan = plan_windows(net, layer, images)
    assert plan.cropped
    channels, rows, columns = plan.field.map_shape
    positions = torch.tensor([[0, columns - 1], [rows // 2, columns // 2], [rows - 1, 0]])
    units = torch.tensor([0, channels // 2, channels - 1]), positions
    whole = project(net, images, layer, *units, start="one", windowed=False)
    result = project(net, images, layer, *units, start="one")
    assert result.pixels.abs().sum() > 0
    assert relative_error(result.activations, whole.activations) < 1e-10
    assert relative_error(result.full(), whole.full()) < 1e-10
    with isolated(net):
        windows = Windows(plan.field)
        corners = windows.corners(positions)
        inputs = cut(images, corners, windows.size)
        _, values = project_windows(net, inputs, layer, units[0], windows.positions_within(positions, corners))
    assert relative_error(values, whole.activations) < 1e-10


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet18", "fc"), ("squeezenet1_1", "classifier.3"), ("googlenet", "fc")]
)
def test_logits(name, layer):
    net, images = network(name), torch.randn(2, 3, 64, 80)
    result = project(net, images, layer, torch.tensor([3, 7]))
    assert result.pixels.shape == images.shape
    assert result.pixels.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "layer", "module"),
    [
        ("mobilenet_v3_small", "features.4", "features.0.2"),
        ("efficientnet_b0", "features.3", "features.0.2"),
        ("regnet_y_400mf", "trunk_output.block2", "trunk_output.block1.block1-0.f.se.scale_activation"),
        pytest.param("timm.convnext_atto", "stages.1", "stem.1", marks=pytest.mark.slow),
    ],
)
def test_gates_are_refused_by_name(name, layer, module):
    net, images = network(name), torch.randn(1, 3, 64, 64)
    with pytest.raises(UnsupportedOperationError, match=f"cannot pass .* in module '{module}'"):
        project(net, images, layer, torch.tensor([0]))
    result = project(net, images, layer, torch.tensor([0]), rule="gradient", start="one")
    leaf = images.clone().requires_grad_()
    row, column = result.positions[0]
    with isolated(net):
        value = activations(net, leaf, [layer])[layer][0, 0, row, column]
    (expected,) = torch.autograd.grad(value, leaf)
    assert relative_error(result.full(), expected) < 1e-3
