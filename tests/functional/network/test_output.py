"""What the output of a classifier is, and what its values mean."""

import collections
import dataclasses

import pytest
import torch
import torchvision
from torch import nn

from lightning_cnnvis import InputSpec, analyze
from lightning_cnnvis.functional import invert, visualize_classes
from lightning_cnnvis.functional.network.output import read_output, tensor_of
from lightning_cnnvis.layers import LayerError

LOGITS, AUXILIARY, MAPS = torch.zeros(2, 5), torch.ones(2, 5), torch.zeros(2, 8, 3, 3)
Outputs = collections.namedtuple("Outputs", ["aux_logits", "logits"])


@dataclasses.dataclass
class Detected:
    loss: torch.Tensor | None
    hidden_states: tuple
    scores: torch.Tensor


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS, AUXILIARY),
        [MAPS, LOGITS],
        {"loss": torch.tensor(1.0), "logits": LOGITS},
        {"features": AUXILIARY, "out": LOGITS},
        collections.OrderedDict(aux=AUXILIARY, out=LOGITS),
        collections.UserDict(embedding=AUXILIARY, prediction=LOGITS),
        {"head": {"class_logits": LOGITS}, "backbone_features": AUXILIARY},
        Outputs(AUXILIARY, LOGITS),
        Detected(None, (MAPS, AUXILIARY), LOGITS),
        (torch.tensor(0.5), torch.tensor([1, 2]), {"y_hat": LOGITS}),
        torchvision.models.GoogLeNetOutputs(LOGITS, AUXILIARY, None),
    ],
    ids=lambda output: type(output).__name__,
)
def test_finds_the_logits(output):
    assert tensor_of(output) is LOGITS


@pytest.mark.parametrize("output", [None, (), {"loss": torch.tensor(1.0)}, torch.Size([2]), "text"], ids=repr)
def test_an_output_without_a_tensor(output):
    with pytest.raises(LayerError, match="without a tensor"):
        tensor_of(output)


SPEC = InputSpec(size=(8, 8))


def network(*end, outputs=4):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, outputs), *end
    ).eval()


class Then(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


ENDS = {
    "softmax": (nn.Softmax(1), "probabilities"),
    "functional softmax": (Then(lambda x: x.softmax(-1)), "probabilities"),
    "softmax in half": (Then(lambda x: x.bfloat16().softmax(-1)), "probabilities"),
    "a mean of softmaxes": (Then(lambda x: (x.softmax(1) + (2 * x).softmax(1)) / 2), "probabilities"),
    "log_softmax": (nn.LogSoftmax(1), "log_probabilities"),
    "log of a softmax": (Then(lambda x: x.softmax(1).log()), "log_probabilities"),
    "sigmoid": (nn.Sigmoid(), "probabilities"),
    "sigmoid, rearranged": (Then(lambda x: torch.stack(x.sigmoid().unbind(1), 1).float()), "probabilities"),
    "sigmoid within bounds": (Then(lambda x: x.sigmoid().clamp(1e-6, 1 - 1e-6)), "probabilities"),
    "a mean of sigmoids": (Then(lambda x: torch.stack([x.sigmoid(), (2 * x).sigmoid()]).mean(0)), "probabilities"),
    "half a sum of sigmoids": (Then(lambda x: (x.sigmoid() + (2 * x).sigmoid()) / 2), "probabilities"),
    "the opposite": (Then(lambda x: 1 - x.sigmoid()), "probabilities"),
    "times an objectness": (Then(lambda x: x.sigmoid() * x[:, :1].sigmoid()), "probabilities"),
    "a gate": (Then(lambda x: x * x.sigmoid()), "softmax"),
    "scaled sigmoids": (Then(lambda x: 30 * x.sigmoid()), "softmax"),
    "logits within bounds": (Then(lambda x: x.clamp(0, 1)), "softmax"),
    "logsigmoid": (nn.LogSigmoid(), "log_probabilities"),
    "nothing": (nn.Identity(), "softmax"),
    "relu": (nn.ReLU(), "softmax"),
    "maps of one place": (nn.Unflatten(1, (4, 1, 1)), "softmax"),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_end_of_a_network_shows_what_it_returns(name):
    end, expected = ENDS[name]
    net = network(end)
    output = read_output(net, SPEC, torch.zeros(1, 3, 8, 8))
    assert (output.kind, output.count) == (expected, 4)
    images = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        values = net(images).reshape(3, 4)
        probabilities = output.probabilities(net(images))
    given = {"softmax": values.softmax(1), "probabilities": values, "log_probabilities": values.exp()}[expected]
    assert torch.equal(probabilities, given)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (nn.Identity(), "sigmoid"),
        (nn.Flatten(0), "sigmoid"),
        (nn.Sigmoid(), "probabilities"),
        (nn.Sequential(nn.Sigmoid(), nn.Flatten(0)), "probabilities"),
    ],
)
def test_a_single_output(end, kind):
    net = network(end, outputs=1)
    with torch.no_grad():
        net[4].bias.fill_(-6.0)
        logit = net[:5](torch.zeros(1, 3, 8, 8))
    output = read_output(net, SPEC, torch.zeros(1, 3, 8, 8))
    assert (output.kind, output.count) == (kind, 1)
    torch.testing.assert_close(output.probabilities(net(torch.zeros(1, 3, 8, 8))), logit.sigmoid())
    assert output.labels(net(torch.zeros(1, 3, 8, 8))).tolist() == [0]
    shown = visualize_classes(net, [0], input_spec=SPEC, steps=4)
    assert shown.states == ("not converged",)
    assert float(shown.probabilities) < 0.01


@pytest.mark.parametrize("end", [nn.Identity(), nn.Sigmoid()])
def test_one_output_of_two_named_classes_is_that_of_the_second(end):
    spec = InputSpec(size=(8, 8), class_names=("cat", "dog"))
    net = network(end, outputs=1)
    with torch.no_grad():
        net[4].bias.fill_(-6.0)
    shown = visualize_classes(net, ["cat", "dog"], input_spec=spec, steps=4)
    assert shown.states == ("reached", "not converged")
    assert shown.probabilities[0] > 0.99
    assert shown.probabilities[1] < 0.01
    assert shown.score_name == ("logit" if isinstance(end, nn.Identity) else "log-probability")


def test_several_labels_are_what_the_format_says():
    net = network()
    with torch.no_grad():
        net[4].bias.fill_(5.0)
    spec = InputSpec(size=(8, 8), output_kind="sigmoid")
    shown = visualize_classes(net, [1], input_spec=spec, steps=4)
    torch.testing.assert_close(shown.probabilities, shown.scores.sigmoid())
    assert shown.states == ("reached",)
    analysis = analyze(net, torch.rand(2, 3, 8, 8), input_spec=SPEC, output_kind="sigmoid")
    assert analysis.classes([1], steps=4).visualizations.states == ("reached",)


def test_probabilities_are_raised_by_their_logarithm():
    plain, shown = network(), {}
    for end in (nn.Identity(), nn.Softmax(1), nn.LogSoftmax(1)):
        net = network(end)
        net.load_state_dict(plain.state_dict())
        shown[type(end)] = visualize_classes(net, [2], input_spec=SPEC, steps=8)
    assert torch.allclose(shown[nn.Softmax].images, shown[nn.LogSoftmax].images, atol=1e-3)
    assert torch.allclose(shown[nn.Softmax].scores.exp(), shown[nn.Softmax].probabilities)
    assert shown[nn.Softmax].losses[0, -1] < shown[nn.Softmax].losses[0, 0]


def test_an_inversion_keeps_the_label_of_a_sigmoid():
    net = network(outputs=1)
    images = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    with torch.no_grad():
        net[4].bias -= net(images).mean()
    found = invert(net, images, "1", input_spec=SPEC, restarts=2, steps=1)
    with torch.no_grad():
        before, after = net(images)[:, 0] > 0, net(found.images[0].flatten(0, 1))[:, 0] > 0
    assert before.sum() == 1
    assert torch.equal(found.label_kept[0], after.view(2, 2) == before)


@pytest.mark.parametrize("kind", ["logits", "Softmax", 3])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(ValueError, match=r"output_kind=.*none of 'softmax', 'sigmoid'"):
        InputSpec(output_kind=kind)


@pytest.mark.parametrize("net", [nn.Conv2d(3, 4, 3), nn.Sequential(nn.Flatten(2))])
def test_what_is_not_a_classifier(net):
    assert read_output(net, SPEC, torch.zeros(1, 3, 8, 8)) is None
    with pytest.raises(ValueError, match=r"shape \(1, .* a classifier's output is \(N, classes\)"):
        visualize_classes(net, [0], input_spec=SPEC, steps=1)
