"""The rule of experiment=auto: which recipe suits a data set, and what each recipe costs on a machine.

`choose` is a pure function of `RunFacts`. docs/choose_a_recipe.md has the evidence for the constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from detpipe.progress import as_time

FEW_OBJECTS = 8
"""If the median number of training objects of a class is below this, the rule takes features of the unchanged network,
because new layers would learn too little. An estimate: the smallest median that was measured is 9.5 (28 images of six
playing cards), and there the network that learns had 0.155 more COCO AP."""
ENOUGH_OBJECTS = 40
"""If the median is below this, a network learns classes whose objects look alike, as playing cards do, but not classes
whose objects look very different: with 15.5 objects of each of six classes of COCO, it had an mAP@0.5 of 0.004, and
features of the unchanged network had 0.091. The numbers are alike in both cases, so the sentence names both recipes."""
MANY_CLASSES = 15
"""More classes than this need FEW_IMAGES training images for each class."""
FEW_IMAGES = 25
"""Training images per class. With many classes and fewer images than this for each, the rule takes features of the
unchanged network. An estimate from two data sets: 20 classes with 14 images each, and 80 with 4."""
SMALL_SIDE = 0.04
"""Median side of an object, as a share of its image's shorter side. Below it, tiles are worth a trial."""
USEFUL_CORES = 8
"""More cores than this do not make a step faster. An estimate: at most two cores were measured."""
SPEED_UP = 0.8
"""A step on n cores is n to this power times as fast as on one. An estimate."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What the rule knows. images, test_images: number of training and test images. classes: with training objects.

    objects: number of training objects. objects_per_class: their median over these classes. object_side: the median of
    the square root of an object's area over its image's shorter side. cores: for this process. bf16: whether networks
    compute in bf16.
    """

    images: int
    test_images: int
    classes: int
    objects: int
    objects_per_class: float
    object_side: float
    cores: int
    bf16: bool


@dataclass(frozen=True)
class Costs:
    """CPU seconds of a recipe on one core with bf16, by stage. A step: of training. The others: for an image.

    least_steps, passes: the number of steps is `least_steps`, or `passes` over the images with `images_per_step`.
    float32: how many times as long its networks take without bf16, estimated.
    """

    propose: float
    detect: float
    features: float = 0.0
    head: float = 0.0
    step: float = 0.0
    least_steps: int = 0
    passes: float = 0.0
    images_per_step: int = 2
    float32: float = 1.7

    def seconds(self, facts: RunFacts, steps: int | None = None) -> dict[str, float]:
        """Estimated seconds of each stage on the machine of `facts`, in the order of the run.

        steps: the number of training steps; None: the recipe's own.
        """
        steps = round(self.steps(facts.images)) if steps is None else steps
        slower = 1.0 if facts.bf16 else self.float32
        every = facts.images + facts.test_images
        cpu = {
            "propose": self.propose * every,
            "features": self.features * every * slower,
            "train-cls": self.step * steps * slower + self.head * facts.images,
            "detect": self.detect * facts.test_images * slower,
        }
        cores = min(facts.cores, USEFUL_CORES) ** SPEED_UP
        return {stage: seconds / cores for stage, seconds in cpu.items() if seconds}

    def steps(self, images: int) -> float:
        """The number of training steps for so many training images."""
        return max(self.least_steps, self.passes * images / self.images_per_step)


# Estimates, from the manifests of one run of each recipe on raccoon, bccd and cards, on one core of Zen 4 with bf16.
# Other programs slowed some of them down, so the step is taken from the quickest run: fast_rcnn on raccoon,
# multibox_fast_rcnn on cards. No other processor was measured.
COSTS: Mapping[str, Costs] = {
    "multibox_fast_rcnn": Costs(propose=0.06, step=0.42, least_steps=500, passes=2.5, detect=0.08),
    "rcnn_frozen": Costs(propose=0.05, features=0.28, head=0.2, detect=0.43),
    "fast_rcnn": Costs(propose=0.05, step=0.5, least_steps=600, passes=3.0, detect=0.25),
}
"""By experiment: the recipes that the rule knows."""
IN_WORDS: Mapping[str, str] = {
    "multibox_fast_rcnn": "MultiBox and Fast R-CNN in one network",
    "rcnn_frozen": "a head on stored features",
    "fast_rcnn": "Fast R-CNN",
}


@dataclass(frozen=True)
class Choice:
    """A chosen recipe: its experiment, the reason as a clause, and the estimated seconds of all recipes.

    few_objects: the sentence advises to compare `rcnn_frozen`. small_objects: it advises to try tiles.
    """

    experiment: str
    reason: str
    seconds: Mapping[str, float]
    few_objects: bool = False
    small_objects: bool = False

    @property
    def sentence(self) -> str:
        """One sentence for people: what was chosen, why, and what it and the others cost."""
        others = ", ".join(
            f"experiment={name} about {as_time(one)}" for name, one in self.seconds.items() if name != self.experiment
        )
        hint = (
            "; if the objects of a class look very different, compare experiment=rcnn_frozen"
            if self.few_objects
            else ""
        )
        hint += "; objects are small, so try tiles=640 (docs/large_images.md)" if self.small_objects else ""
        return (
            f"experiment=auto uses {self.experiment} ({IN_WORDS[self.experiment]}), because {self.reason}; it takes "
            f"about {as_time(self.seconds[self.experiment])} here, {others}{hint}"
        )


def choose(facts: RunFacts) -> Choice:
    """The recipe for a data set and a machine.

    With few objects of a class, or many classes with few images, it is a head on features of the unchanged network.
    Otherwise it is the network that learns to propose and to classify. Cores and precision change the estimated cost
    but not the choice: the number of training steps does not depend on them, so the accuracy should not, either. This
    was not checked on other machines. Small objects do not change the choice; the sentence then names tiles.
    """
    per_class = f"{facts.objects_per_class:g} training objects"
    if facts.objects_per_class < FEW_OBJECTS:
        experiment = "rcnn_frozen"
        reason = (
            f"a typical class of {facts.classes} has {per_class}, too few to train new layers (below {FEW_OBJECTS})"
        )
    elif facts.classes > MANY_CLASSES and facts.images < FEW_IMAGES * facts.classes:
        experiment = "rcnn_frozen"
        reason = f"there are {facts.classes} classes and only {facts.images} training images"
    else:
        experiment = "multibox_fast_rcnn"
        reason = f"a typical class of {facts.classes} has {per_class}, enough to train a whole network"
    seconds = {name: sum(one.seconds(facts).values()) for name, one in COSTS.items()}
    return Choice(
        experiment,
        reason,
        seconds,
        few_objects=experiment != "rcnn_frozen" and facts.objects_per_class < ENOUGH_OBJECTS,
        small_objects=facts.object_side < SMALL_SIDE,
    )
