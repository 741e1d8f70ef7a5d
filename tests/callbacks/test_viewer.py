"""What a training writes for the viewer."""

from __future__ import annotations

import json

import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from runs import QUICK, SPEC, fit
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from lightning_cnnvis.callbacks import callback_of


def written(folder) -> dict[str, list[bytes]]:
    """The blobs by tag, and under the empty tag the bytes of the images."""
    found: dict[str, list[bytes]] = {"": []}
    for file in folder.rglob("events.*"):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "cnnvis":
                    assert value.tag not in found, "something was written twice"
                    found[value.tag] = [value.metadata.plugin_data.content, *value.tensor.string_val]
                elif value.metadata.plugin_data.plugin_name == "images":
                    found[""] += list(value.tensor.string_val)
    return found


def trained(folder, *names: str, **options):
    callbacks = [
        callback_of(name, **QUICK[name], input_spec=SPEC, every_n_epochs=1, on_error="raise", **options)
        for name in names
    ]
    fit(folder, *callbacks, logger=TensorBoardLogger(str(folder)))
    return written(folder)


def test_every_layer_and_epoch_is_written_once_beside_the_images(tmp_path):
    found = trained(tmp_path, "deconv", "classes")
    images = sum(map(len, found.pop("")))
    assert set(found) >= {f"cnnvis/deconvnet/{layer}/0/000{epoch}" for layer in "25" for epoch in (1, 2)}
    heads = [json.loads(head) for head, *_ in found.values()]
    (network,) = (head for head in heads if head["kind"] == "network")
    assert [layer["name"] for layer in network["layers"]] == list("012345678")
    sections = [head for head in heads if head["kind"] == "section"]
    assert {(head["title"], head["layer"], head["epoch"]) for head in sections} == {
        (title, title != "Classes", epoch) for title in ("2", "5", "Classes") for epoch in (1, 2)
    }
    last = next(head for head in sections if head["title"] == "2" and head["epoch"] == 2)
    assert set(last["numbers"]) == {"projection_similarity/2", "top_overlap/2", "dead_maps/2"}
    body = json.loads(found["cnnvis/deconvnet/2/0/0002"][1])
    assert [block["kind"] for block in body["blocks"]] == ["tracks", "features"]
    assert [one["channel"] for one in body["blocks"][1]["maps"]] == [
        one["channel"] for one in body["blocks"][0]["maps"]
    ]
    assert 0 < sum(len(blob) for blobs in found.values() for blob in blobs) < 2 * images


@pytest.mark.parametrize("name", ["mean_image", "unit_invariance", "invariance", "randomization"])
def test_a_section_shows_the_pictures(tmp_path, name):
    QUICK.setdefault(name, {})
    found = trained(tmp_path, name)
    bodies = [json.loads(blobs[1]) for tag, blobs in found.items() if tag and "network" not in tag]
    assert bodies
    assert all(body["blocks"][0]["kind"] == "gallery" and body["blocks"][0]["tiles"] for body in bodies)


def test_can_be_switched_off(tmp_path):
    assert set(trained(tmp_path, "deconv", viewer=False)) == {""}
