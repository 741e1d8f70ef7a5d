import torch

from lightning_cnnvis.callbacks.inversion import find_accuracy

HALF, LOSS = torch.tensor(0.5), torch.tensor(2.0)


def test_the_name_that_was_given_comes_first():
    assert find_accuracy({"val_acc": LOSS, "mine": HALF}, "mine") is HALF


def test_the_only_metric_that_can_be_it_is_taken():
    assert find_accuracy({"val/loss": LOSS, "train/acc": HALF, "Val/Acc": HALF}, "val_accuracy") is HALF


def test_several_or_none_are_not_guessed():
    assert find_accuracy({"val_acc1": HALF, "val_acc5": HALF}, "val_accuracy") is None
    assert find_accuracy({"val/acc": LOSS}, "val_accuracy") is None
