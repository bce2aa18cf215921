"""What a study declares: its variants on each data, and how its figure is drawn.

A study says nothing of seeds, folders or processes: see `plan.py` and `sweep.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.prepare.synthetic_twins import CLASSES, ORDER_FREE_CEILING
from timesformer.prepare.synthetic_writer import SyntheticSpec


@dataclass(frozen=True)
class Data:
    """What models are trained and tested on: a panel of a figure.

    Attributes:
        name: in the names of folders.
        title: above the panel.
        recipe: that of divided attention, which studies change.
        paper: whose numbers of the papers are drawn beside it.
        same: whether these are of this very data, or of what it stands for.
        make: how it is made, for what is generated.
        lines: values that are known beforehand, by their names.
        start: keys that its recipe has in all studies, unless a variant says otherwise: the image
            weights that models start from, where the recipe itself can't name them.
    """

    name: str
    title: str
    recipe: str
    paper: str
    same: bool = True
    make: SyntheticSpec | None = None
    lines: Mapping[str, float] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)

    @property
    def generated(self) -> bool:
        """Whether it is made here, small."""
        return self.make is not None

    def with_keys(self, keys: Mapping[str, Any], **shipped: str) -> Recipe:
        """Return this data's recipe with these keys.

        Args:
            keys: what differs.
            **shipped: by the name of some data, a recipe on it that has these keys already.
        """
        if self.name in shipped:
            return Recipe(shipped[self.name])
        return Recipe(self.recipe, {**self.start, **keys})


@dataclass(frozen=True)
class Recipe:
    """What is trained and tested, whatever the seed.

    Attributes:
        cfg: name of the recipe.
        keys: what differs from it. A value that is a `Recipe` stands for the folder of its run.
        seed: of all its runs, where other runs start from the same one; None: each has its own.
        data: what it is trained on, where that isn't the data of its panel.
    """

    cfg: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    data: Data | None = None


@dataclass(frozen=True)
class Variant:
    """A point of a figure.

    Attributes:
        label: its name.
        recipe: what is trained and tested.
        x: its place on the axis, where the study has one and doesn't work it out.
        series: the line that it belongs to.
        paper: top-1 in the paper, in percent.
        clips: of how many of its test clips the accuracy is taken; 0: what the test says.
    """

    label: str
    recipe: Recipe
    x: float | None = None
    series: str = ""
    paper: float | None = None
    clips: int = 0

    @property
    def name(self) -> str:
        """The label, or series and place."""
        place = "" if self.x is None else f"{self.x:g}"
        return self.label or f"{self.series} {place}".strip()


@dataclass(frozen=True)
class Study:
    """A figure.

    Attributes:
        title: above it.
        variants: what there is to compare on some data, in the order in which it is drawn.
        x_label: of the axis; empty: variants are rows with their names.
        x_of: works out x from a run's config.
        x_log: the axis is logarithmic.
        costs: multiply-adds of a clip are drawn as well.
        source: where the paper's numbers are from.
    """

    title: str
    variants: Callable[[Data], Sequence[Variant]]
    x_label: str = ""
    x_of: Callable[[CfgNode], float] | None = None
    x_log: bool = False
    costs: bool = False
    source: str = ""


CNNS: Mapping[str, str] = {"SlowFast": "slowfast_r50", "I3D": "i3d_r50"}
"""3D CNNs that the paper compares with, and their MODEL.MODEL_NAME."""

_SIZES = ("INIT", "TIME_EMBED_AMPLITUDE", "EMBED_DIM", "DEPTH", "NUM_HEADS", "DROP_PATH_RATE")
NARROW_CNN: Mapping[str, Any] = {
    "TIMESFORMER.PRETRAINED_MODEL": "",
    # What the recipes of transformers say means nothing to a 3D CNN, so it is unsaid.
    **{f"TIMESFORMER.{key}": get_cfg().TIMESFORMER[key] for key in _SIZES},
    "CNN.WIDTH": 0.25,
    "SOLVER.BASE_LR": 2e-3,
}
"""Keys that make of a generated set's recipe one for 3D CNNs of a quarter of the channels."""

# Videos of other scenes than the twins', of which an image model sees one frame at a time.
IMAGES = Data(
    "images", "Synthetic, frames", "Synthetic/Study_images", "K400", same=False,
    make=SyntheticSpec.of_kind("static", seed=1),
)  # fmt: skip


def image_start(model: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Return the start of the generated sets' models, as the papers' start from ImageNet.

    Args:
        model: keys of the model that the image model must have, too.
    """
    return {
        **model,
        "TIMESFORMER.PRETRAINED_MODEL": Recipe(IMAGES.recipe, model, seed=0, data=IMAGES),
        "TIMESFORMER.INIT": "image",
        # Sines about twice as large as what image weights make of patches, without which the
        # order of time isn't learnt from so few videos: docs/synthetic.md.
        "TIMESFORMER.TIME_EMBED_AMPLITUDE": 6.0,
    }


CHANCE = 100 / CLASSES
SYNTHETIC = (
    Data(
        "static",
        "Synthetic, static",
        "Synthetic/Study_static",
        "K400",
        same=False,
        make=SyntheticSpec.of_kind("static"),
        lines={"chance": CHANCE},
        start=image_start(),
    ),
    Data(
        "temporal",
        "Synthetic, temporal",
        "Synthetic/Study_temporal",
        "SSv2",
        same=False,
        make=SyntheticSpec.of_kind("temporal"),
        lines={"chance": CHANCE, "ceiling without order": 100 * ORDER_FREE_CEILING},
        start=image_start(),
    ),
)
KINETICS = Data("kinetics", "Kinetics-400", "Kinetics/TimeSformer_divST_8x32_224", "K400")
SSV2 = Data("ssv2", "Something-Something V2", "SSv2/TimeSformer_divST_8_224", "SSv2")
CNN_RECIPES: Mapping[str, Mapping[str, str]] = {
    "kinetics": {
        "SlowFast": "Baselines/SlowFast_R50_8x8",
        "I3D": "Baselines/I3D_R50_8x8",
    },
    "ssv2": {"SlowFast": "SSv2/SlowFast_R50_32_224"},
}
"""Recipes of 3D CNNs at full size, by data."""

DATA: Mapping[str, tuple[Data, ...]] = {
    "synthetic": SYNTHETIC,
    "kinetics": (KINETICS,),
    "ssv2": (SSV2,),
}
"""What `--data` may be."""
