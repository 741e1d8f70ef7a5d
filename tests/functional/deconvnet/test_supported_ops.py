"""Operations that a deconvnet passes."""

import pytest
import torch
from torch import nn

from lightning_cnnvis.functional import project


@pytest.mark.parametrize("copied", [True, False])
def test_a_full_backward_hook_is_passed(copied, monkeypatch):
    if not copied:
        monkeypatch.setattr("lightning_cnnvis.isolation.working_copy", lambda _: None)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU())
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    channels = torch.tensor([0, 3])
    expected = project(net, images, "3", channels, windowed=copied).pixels
    net[1].register_full_backward_hook(lambda *_: None)
    net[2].register_full_backward_pre_hook(lambda *_: None)
    net.register_full_backward_hook(lambda *_: None)
    assert torch.equal(project(net, images, "3", channels, windowed=copied).pixels, expected)
