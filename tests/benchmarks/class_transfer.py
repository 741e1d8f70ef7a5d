"""Class images of classes that took no part in tuning, on three networks, beside lucent 0.1.8.

    python -m tests.benchmarks.class_transfer OUTPUT.csv [--classes 50] [--seeds 3] [--tiny10 FOLDER] [--without-lucent]

SqueezeNet and EfficientNet-Lite 0 make images of 128 px, both tools with their defaults, and each network says whether
it sees the classes of the other's (transfer, among the five most probable of 1000). With tiny10, a small network with
BatchNorm and LeakyReLU makes images of its ten classes at 32 px, which one of another seed and width judges (most
probable). A row an image goes to OUTPUT.csv after every batch; what is there is not made again. The table goes to the
console.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from lightning_cnnvis.functional.optimization.transforms import resize
from lightning_cnnvis.functional.visualization.classes import REACHED_PROBABILITY, visualize_classes
from lightning_cnnvis.inputs import InputSpec

from .information_images import append, read
from .real_models import EFFICIENTNET, IMAGENET, efficientnet, save_sheet, squeezenet
from .tables import table

ORDER = torch.randperm(1000, generator=torch.Generator().manual_seed(1966)).tolist()
"""All classes in a random order. The default was tuned on the first 8 and on 12 from the 73rd on."""
BATCH = 16
COLUMNS = ("network", "tool", "seed", "class", "own", "at_224", "rank", "means", "seconds")


@dataclass(frozen=True)
class Subject:
    """A network, at the size of its images, and the network that judges them."""

    network: nn.Module
    input_spec: InputSpec
    layer: str
    judge: nn.Module
    judge_spec: InputSpec
    classes: tuple[int, ...]
    top: int


def classes(count: int) -> tuple[int, ...]:
    """Classes of ImageNet that nothing was tuned on."""
    if not 1 <= count <= 64:
        raise ValueError(f"classes={count}: 1 to 64 took no part in the tuning.")
    return tuple(ORDER[8 : 8 + count])


def subjects(count: int, tiny10: Path | None) -> dict[str, Subject]:
    """The networks by name."""
    squeeze, lite = (squeezenet(), IMAGENET), (efficientnet(), EFFICIENTNET)
    small = {"size": (128, 128)}
    found = {
        "squeezenet": Subject(squeeze[0], replace(IMAGENET, **small), "classifier_3", *lite, classes(count), 5),
        "efficientnet_lite0": Subject(
            lite[0], replace(EFFICIENTNET, **small), "classifier", *squeeze, classes(count), 5
        ),
    }
    if tiny10 is not None:
        (own, spec), (judge, _) = (trained(tiny10, seed, width) for seed, width in ((0, 32), (1, 48)))
        found["leaky_32"] = Subject(own, spec, "18", judge, spec, tuple(range(10)), 1)
    return found


@cache
def trained(folder: Path, seed: int, width: int) -> tuple[nn.Module, InputSpec]:
    """A small network with BatchNorm and LeakyReLU, trained on tiny10 at 32 px for eight epochs."""
    import pytorch_lightning as pl

    from lightning_cnnvis import ImageFolder

    def block(before: int, after: int, *pool: nn.Module) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.LeakyReLU(0.1), *pool]

    class Classifier(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            wide = 4 * width
            self.network = nn.Sequential(
                *block(3, width), *block(width, 2 * width, nn.MaxPool2d(2)), *block(2 * width, wide),
                *block(wide, wide, nn.MaxPool2d(2)), *block(wide, wide), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                nn.Linear(wide, 10),
            )  # fmt: skip

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1], label_smoothing=0.1)

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), 2e-3, weight_decay=0.05)
            steps = self.trainer.estimated_stepping_batches
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=int(steps))
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    pl.seed_everything(seed, verbose=False)
    data, module = ImageFolder(root=str(folder), image_size=32), Classifier()
    pl.Trainer(
        max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    ).fit(module, data)  # fmt: skip
    return module.network.eval(), data.input_spec


def ours(subject: Subject, wanted: list[int], seed: int) -> tuple[Tensor, list[str]]:
    """Images in [0, 1], and by which means those were made that the first attempt did not reach."""
    shown = visualize_classes(subject.network, wanted, input_spec=subject.input_spec, seed=seed)
    return shown.images, list(shown.means or [""] * len(wanted))


def lucent(subject: Subject, wanted: list[int], seed: int) -> tuple[Tensor, list[str]]:
    """Images in [0, 1] with its default settings, which enlarge those below 224 px, but not for a small network."""
    if (
        "IPython" not in sys.modules and find_spec("IPython") is None
    ):  # which lucent imports to show pictures in notebooks
        sys.modules.setdefault("IPython", ModuleType("IPython"))
        sys.modules.setdefault("IPython.display", ModuleType("IPython.display"))
    from lucent.optvis import objectives, param, render

    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = subject.network

        def forward(self, images: Tensor) -> Tensor:
            return self.network(subject.input_spec.normalize(images))

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the generator that lucent draws from
    side = subject.input_spec.size[0]
    logits = [objectives.channel(f"network_{subject.layer}", index, batch=i) for i, index in enumerate(wanted)]
    images = render.render_vis(
        Normalized().eval(),
        objectives.Objective.sum(logits),
        lambda: param.image(side, batch=len(wanted)),
        thresholds=(128,),
        preprocess=False,
        fixed_image_size=None if side >= 64 else side,
        show_image=False,
        progress=False,
    )[-1]
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().cpu().clamp(0, 1), [""] * len(wanted)


TOOLS: dict[str, Callable[[Subject, list[int], int], tuple[Tensor, list[str]]]] = {"ours": ours, "lucent": lucent}


def probabilities(network: nn.Module, spec: InputSpec, images: Tensor, size: tuple[int, int]) -> Tensor:
    """On the clean image, ``(N, classes)``."""
    with torch.no_grad():
        return network(spec.normalize(resize(images, size))).softmax(1)


def rows_of(
    name: str, subject: Subject, tool: str, seed: int, wanted: list[int], out: Path | None
) -> list[dict[str, object]]:
    """Makes images of some classes, and asks both networks."""
    start = time.perf_counter()
    images, means = TOOLS[tool](subject, wanted, seed)
    seconds = (time.perf_counter() - start) / len(wanted)
    if out is not None:
        save_sheet(images, out.with_name(f"{out.stem}_{name}_{tool}_{seed}_{wanted[0]}.png"), columns=4)
    spec, target = subject.input_spec, torch.tensor(wanted)[:, None]
    own = probabilities(subject.network, spec, images, spec.size)
    large = own if spec.size[0] < 64 else probabilities(subject.network, spec, images, (224, 224))
    judged = probabilities(subject.judge, subject.judge_spec, images, subject.judge_spec.size)
    rank = 1 + (judged > judged.gather(1, target)).sum(1)
    return [
        {
            "network": name, "tool": tool, "seed": seed, "class": index, "own": f"{float(own[n, index]):.4f}",
            "at_224": f"{float(large[n, index]):.4f}", "rank": int(rank[n]), "means": means[n],
            "seconds": f"{seconds:.3f}",
        }
        for n, index in enumerate(wanted)
    ]  # fmt: skip


def summary(rows: list[dict[str, str]], tops: dict[str, int]) -> str:
    """The table: means over all classes and seeds that there are."""
    lines = []
    for network, tool in dict.fromkeys((row["network"], row["tool"]) for row in rows):
        own = [row for row in rows if (row["network"], row["tool"]) == (network, tool)]
        lines.append([
            network, tool, str(len({row["class"] for row in own})), str(len({row["seed"] for row in own})),
            f"{mean(float(row['own']) >= REACHED_PROBABILITY for row in own):.2f}",
            f"{mean(bool(row['means']) for row in own):.2f}",
            f"{mean(float(row['at_224']) for row in own):.2f}",
            f"{mean(int(row['rank']) <= tops.get(network, 5) for row in own):.2f}",
            f"{mean(float(row['seconds']) for row in own):.2f}",
        ])  # fmt: skip
    header = ["network", "tool", "classes", "seeds", "reached", "of these or others by a second try", "p at 224 px",
              "transfer", "seconds an image"]  # fmt: skip
    return table(header, lines)


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tiny10", type=Path)
    parser.add_argument("--without-lucent", action="store_true")
    parser.add_argument("--sheets", action="store_true", help="contact sheets beside the output")
    options = parser.parse_args()
    found = subjects(options.classes, options.tiny10)
    for seed in range(options.seeds):
        for name, subject in found.items():
            for start in range(0, len(subject.classes), BATCH):
                wanted = list(subject.classes[start : start + BATCH])
                for tool in ("ours",) if options.without_lucent else TOOLS:
                    done = {
                        int(row["class"])
                        for row in read(options.output)
                        if (row["network"], row["tool"], int(row["seed"])) == (name, tool, seed)
                    }
                    left = [index for index in wanted if index not in done]
                    if left:
                        rows = rows_of(name, subject, tool, seed, left, options.output if options.sheets else None)
                        append(options.output, rows, COLUMNS)
                        print(name, tool, seed, start, file=sys.stderr, flush=True)
    print(summary(read(options.output), {name: subject.top for name, subject in found.items()}))


if __name__ == "__main__":
    main()
