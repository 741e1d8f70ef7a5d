"""Correspondence on photographs: middle layers know eyes and noses, as Table 1 of Zeiler & Fergus 2013 has it.

The boxes were marked by hand in six photographs of Persian cats, 64 px; only the boxes are part of the project.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import timm
import torchvision
from safetensors.torch import load_file

from lightning_cnnvis import InputSpec, analyze
from lightning_cnnvis.inputs import IMAGENET_MEAN, IMAGENET_STD
from lightning_cnnvis.inputs.parts import read_parts

PARTS = Path(__file__).parent / "persian_cats.csv"


def squeezenet(folder):
    net = torchvision.models.squeezenet1_1(weights=None)
    net.load_state_dict(load_file(folder / "squeezenet1_1_imagenet.safetensors"))
    return net, InputSpec(mean=IMAGENET_MEAN, std=IMAGENET_STD)


def efficientnet(folder):
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    net.load_state_dict(load_file(folder / "efficientnet_lite0_imagenet.safetensors"), strict=False)
    return net, InputSpec(mean=(0.5,), std=(0.5,))


@pytest.mark.parametrize(("make", "layer"), [(squeezenet, "features.4.squeeze_activation"), (efficientnet, "blocks.4")])
def test_eyes_and_noses_are_below_random_in_a_middle_layer(shared_data, tmp_path, make, layer):
    marked, _ = read_parts(PARTS)
    with tarfile.open(shared_data / "tiny10.tar") as archive:
        members = [m for m in archive if m.isfile() and m.name.startswith("tiny10/val/Persian_cat/")]
        for member in members:
            if Path(member.name).name in marked:
                (tmp_path / Path(member.name).name).write_bytes(archive.extractfile(member).read())
    net, spec = make(shared_data)
    files = sorted(tmp_path.iterdir())
    found = analyze(net, input_spec=spec).correspondence([layer], images=files, parts=PARTS).correspondence
    assert len(found.parts["nose"]) == 6
    random = found.deltas[layer]["random"]
    assert {part for part, delta in found.deltas[layer].items() if delta < random} == {"left eye", "right eye", "nose"}
