"""The judge's eye: a small CNN that names each attribute of a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipelines.postcards.autoencoder import to_tensors
from pipelines.postcards.loop import Loop, train_device
from pipelines.postcards.pictures import read_scenes
from pipelines.postcards.settings import Settings
from pipelines.postcards.vocabulary import ATTRIBUTES, Scene, attributes

SIZE = 64
JUDGE_FILE = Path(__file__).parent / "weights" / "judge.safetensors"


class Classifier(nn.Module):
    """Pictures in [-1, 1], shape (n, 3, 64, 64), to logits by attribute."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 32, 2), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 128, 2))
        self.features = nn.Sequential(*[self._block(*width) for width in widths])
        self.hidden = nn.Linear(128 * 4 * 4, 96)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(96, len(classes)) for name, classes in ATTRIBUTES.items()}
        )

    @staticmethod
    def _block(width_in: int, width_out: int, stride: int) -> nn.Sequential:
        convolution = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        return nn.Sequential(convolution, nn.GroupNorm(8, width_out), nn.ReLU())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        hidden = F.relu(self.hidden(self.features(images).flatten(1)))
        hidden = F.dropout(hidden, 0.3, self.training)
        return {name: head(hidden) for name, head in self.heads.items()}


def roughen(images: Tensor) -> Tensor:
    """The pictures with noise, and in half of the calls blurred, as generated ones may be."""
    if torch.rand(()) < 0.5:
        images = (images + F.interpolate(F.avg_pool2d(images, 2), scale_factor=2)) / 2
    return images + torch.randn_like(images) * torch.rand(()) * 0.15


def classification_loss(logits: dict[str, Tensor], labels: dict[str, Tensor]) -> Tensor:
    return sum(F.cross_entropy(logits[name].float(), labels[name]) for name in ATTRIBUTES)


def scene_labels(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """Class indices by attribute."""
    rows = [attributes(scene) for scene in scenes]
    return {
        name: torch.tensor([classes.index(row[name]) for row in rows])
        for name, classes in ATTRIBUTES.items()
    }


def save_classifier(classifier: Classifier, path: Path) -> None:
    save_file({key: value.half() for key, value in classifier.state_dict().items()}, path)


def load_classifier(path: Path = JUDGE_FILE) -> Classifier:
    classifier = Classifier()
    classifier.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    return classifier.eval()


@torch.no_grad()
def classify(classifier: Classifier, pictures: Sequence[Image.Image]) -> list[dict[str, str]]:
    """For each picture the most likely value of each of ATTRIBUTES."""
    named = []
    for images in _batches(pictures):
        logits = classifier(images)
        best = {name: values.argmax(1).tolist() for name, values in logits.items()}
        named += [
            {name: ATTRIBUTES[name][best[name][index]] for name in ATTRIBUTES}
            for index in range(len(images))
        ]
    return named


@torch.no_grad()
def features_of(
    classifier: Classifier,
    pictures: Sequence[Image.Image],
    on_batch: Callable[[], None] | None = None,
) -> np.ndarray:
    """What the classifier's layers see on average over each picture, from edges to whole subjects;
    shape (pictures, 544)."""
    rows = []
    for images in _batches(pictures):
        if on_batch:
            on_batch()
        means = []
        for block in classifier.features:
            images = block(images)
            means.append(images.mean((2, 3)))
        rows.append(torch.cat(means, 1).numpy())
    return np.concatenate(rows).astype(float)


def _batches(pictures: Sequence[Image.Image]) -> Iterator[Tensor]:
    """Pictures in [-1, 1], shape (up to 64, 3, SIZE, SIZE)."""
    for start in range(0, len(pictures), 64):
        batch = [picture.convert("RGB") for picture in pictures[start : start + 64]]
        batch = [p if p.size == (SIZE, SIZE) else p.resize((SIZE, SIZE)) for p in batch]
        images = torch.from_numpy(np.stack([np.asarray(picture) for picture in batch]))
        yield images.permute(0, 3, 1, 2).float() / 127.5 - 1


def train_judge(rank: int, settings: Settings) -> None:
    """Train the judge's classifier on the painted pictures; result: judge.safetensors."""
    torch.manual_seed(0)
    device, batch = train_device(), 64
    classifier = Classifier().to(device)
    pictures = np.load(settings.work / "training.npy", mmap_mode="r")
    labels = scene_labels(read_scenes(settings.work / "training.jsonl"))
    loop = Loop(
        "judge-training",
        {"classifier": classifier},
        settings.work,
        settings.minutes_of("judge"),
        learning_rate=1e-3,
        average=0.998,
        rank=rank,
        seed=4,
    )
    for _ in loop:
        chosen = torch.randint(len(pictures), (batch,)).sort().values
        images, _ = to_tensors(pictures[chosen.numpy()], device)
        images = F.interpolate(images, SIZE, mode="area")
        with loop.autocast():
            logits = classifier(roughen(images))
        wanted = {name: values[chosen].to(device) for name, values in labels.items()}
        loop.update(classification_loss(logits, wanted), batch)
    if rank == 0:
        fresh = settings.work / "judge.new"
        save_classifier(classifier.cpu(), fresh)
        fresh.replace(settings.work / "judge.safetensors")
