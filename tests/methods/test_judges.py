"""Other networks that say whether they see the class of an optimised image, too."""

from __future__ import annotations

import csv

import pytest
import torch
from runs import IMAGES, SPEC, fit, network
from torch import nn
from torchvision.models import squeezenet1_1

from lightning_cnnvis import ClassVisualization, InputSpec, analyze
from lightning_cnnvis.functional import Judge, judge_images, visualize_classes
from lightning_cnnvis.methods.judges import check_judges, load_judges

COLOURS = torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 8, 8)


def mean(classes: int = 3) -> nn.Sequential:
    """Takes an image for the class of its strongest channel."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *([] if classes == 3 else [nn.Linear(3, classes)]))


def test_a_judge_has_its_own_size_normalisation_and_order_of_classes():
    own = Judge(mean(), InputSpec((4, 6), mean=(0.5,), std=(0.1,), class_names=("emu", "cat", "dog")), "other")
    first, *_ = verdicts = judge_images(COLOURS, ["cat", "dog", 2], [mean(), own], input_spec=SPEC)
    assert first.judges == ("Sequential", "other")
    assert [verdict.ranks.tolist() for verdict in verdicts] == [[1, 3]] * 3
    # the other network calls the second channel cat
    assert [bool(verdict.seen[0]) for verdict in verdicts] == [True] * 3
    assert not any(bool(verdict.seen[1]) for verdict in verdicts)
    assert first.words == "seen by 1 of 2 judges"
    assert float(first.probabilities[1]) < 0.01


def test_a_judge_is_left_as_it_was_and_images_do_not_depend_on_each_other():
    judge = network(dropout=True).train()
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    state = torch.random.get_rng_state()
    both = judge_images(IMAGES[:2], [0, 1], [judge], input_spec=SPEC)
    (alone,) = judge_images(IMAGES[1:2], [1], [judge], input_spec=SPEC)
    torch.testing.assert_close(both[1].probabilities, alone.probabilities)
    assert judge.training
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in judge.state_dict().items())


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (mean(4), "Sequential has 4 classes, and not 3"),
        (nn.Conv2d(3, 3, 3), "Conv2d is not a classifier"),
        (Judge(mean(), InputSpec((8, 8), class_names=("cat", "dog", "owl")), "a"), "The judge a has no class 'emu'"),
        (Judge(mean(), InputSpec((8, 8), channels=1)), "takes images of 1 channels"),
        (nn.Sequential(nn.Flatten(), nn.Linear(5, 3)), "does not run on an image of shape"),
    ],
)
def test_a_judge_of_something_else_is_refused(judge, message):
    with pytest.raises(ValueError, match=message):
        visualize_classes(network(), [0], input_spec=SPEC, steps=1, judges=[judge])


@pytest.mark.parametrize(
    ("judges", "message"),
    [
        ("timm:resnet18", "is one judge, not a list"),
        (["resnet18"], "'resnet18' is neither a file nor a network"),
        (["torchvision:resnet19"], "no classifier 'resnet19'"),
        (["torchvision:resnet18=absent.pth"], "'torchvision:resnet18=absent.pth' is neither"),
        (["torchvision:resnet18="], "'torchvision:resnet18=' is neither"),
        ([""], "'' is neither a file"),
        ([3], "3 is neither a name"),
        (3, "judges=3 is not a list"),
    ],
)
def test_a_judge_that_is_not_there_is_refused(judges, message):
    with pytest.raises(ValueError, match=message):
        check_judges(judges)


def test_weights_of_a_named_network_judge(tmp_path):
    file = tmp_path / "epoch=3.pth"
    torch.save(squeezenet1_1(num_classes=3).state_dict(), file)
    (judge,) = load_judges([f"torchvision:squeezenet1_1={file}"])
    assert (judge.title, judge.input_spec.size, judge.input_spec.class_names) == ("epoch=3", (224, 224), ())


def test_classes_show_what_judges_say():
    analysis = analyze(network(), data=IMAGES, input_spec=SPEC)
    plain = analysis.classes([0, "dog"], steps=2)
    shown = analysis.classes([0, "dog"], steps=2, judges=[mean(), network()])
    torch.testing.assert_close(shown.visualizations.images, plain.visualizations.images)
    assert plain.visualizations.verdicts is None
    assert [verdict.judges for verdict in shown.visualizations.verdicts] == [("Sequential", "Sequential (2)")] * 2
    rows = list(csv.DictReader(shown.tables["class_visualization/transfer"].splitlines()))
    assert [row["class"] for row in rows] == ["cat", "cat", "dog", "dog"]
    assert {"class_transfer/Sequential", "class_transfer/Sequential (2)"} <= set(shown.scalars)
    assert shown.texts["class_visualization/transfer"][0].startswith("Images whose class other networks see")


def test_a_training_with_judges_is_the_same(tmp_path):
    def losses(**judges):
        callback = ClassVisualization(
            classes=[0], steps=1, input_spec=SPEC, on_error="raise", every_n_epochs=1, **judges
        )
        torch.manual_seed(0)
        return torch.stack(fit(tmp_path, callback).lightning_module.losses)

    assert torch.equal(losses(), losses(judges=[network(dropout=True).train()]))
