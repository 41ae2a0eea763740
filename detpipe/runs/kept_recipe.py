"""recipe.json: the recipe that experiment=auto chose for a run folder, so that the same command chooses it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from detpipe.runs.recipe import COSTS, Choice, RunFacts
from detpipe.runs.run_folder import RunFolder
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import read_dataclass
from detpipe.storage.manifest import manifest_path

REMEDY = "delete it, or give experiment=NAME"


@dataclass(frozen=True, kw_only=True)
class KeptRecipe:
    """The content of the file. sentence: what was chosen and why. facts: which the choice rests on."""

    experiment: str
    sentence: str
    facts: RunFacts

    def __post_init__(self) -> None:
        if self.experiment not in COSTS:
            raise ValueError(f"experiment: expected one of {', '.join(COSTS)}, got {self.experiment!r}")


def keep_recipe(folder: RunFolder, choice: Choice, facts: RunFacts) -> None:
    """Write the choice into the run folder."""
    kept = KeptRecipe(experiment=choice.experiment, sentence=choice.sentence, facts=facts)
    write_json(folder.recipe, asdict(kept))


def kept_recipe(folder: RunFolder) -> KeptRecipe | None:
    """The recipe that was chosen for the run folder; None without one. Raises DataclassJsonError for a damaged file."""
    return read_dataclass(folder.recipe, KeptRecipe, REMEDY) if folder.recipe.is_file() else None


def is_begun(folder: RunFolder) -> bool:
    """Whether a stage has begun an artefact in the run folder."""
    artefacts = (folder.proposals, folder.crops, folder.multibox, folder.fine_tuned / "classifier", folder.classifier)
    return any(manifest_path(one).is_file() for one in artefacts)
