"""The prompts of a run: those of its specification, and those of prompt libraries."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from st_shared.spec.reading import SpecProblems, parse_yaml, problems_of, read_text
from st_shared.spec.training import TrainingSpec
from st_shared.spec.validation import MOST_PROMPTS, Prompt, PromptSpec, ValidationSpec
from st_trainer.data.locate import Place
from st_trainer.errors import BadSpecError

_PROMPT: TypeAdapter[PromptSpec] = TypeAdapter(Prompt)


def placed(settings: ValidationSpec, dataset: Place) -> ValidationSpec:
    """``settings`` with every prompt there is, each with the place of its picture on this machine.

    Relative files lie in the folder of the first dataset, or in the working folder where that is
    no folder here.

    Raises:
        BadSpecError: a library cannot be read, says something impossible, or holds too many.
    """
    folder = dataset if isinstance(dataset, Path) else Path()
    given = iter(settings.conditioning)
    prompts = [
        each if each.conditioning else each.model_copy(update={"conditioning": next(given, None)})
        for each in settings.prompts
    ]
    for library in settings.libraries:
        prompts += read_library(folder / library)  # absolute ones stay
    if len(prompts) > MOST_PROMPTS:
        raise BadSpecError(
            f"training.validation.libraries: {len(prompts)} prompts in all, but {MOST_PROMPTS} are "
            "most: shorten them"
        )
    found = [
        each.model_copy(update={"conditioning": str(folder / each.conditioning)})
        if each.conditioning
        else each
        for each in prompts
    ]
    return settings.model_copy(update={"prompts": found, "libraries": [], "conditioning": []})


def read_library(path: Path) -> list[PromptSpec]:
    """The prompts in a file of JSON or YAML: names with texts or sections, or a list of them.

    Raises:
        BadSpecError: it cannot be read, or says something impossible; the entry is named.
    """
    where = f"training.validation.libraries: {path}"
    try:
        document = parse_yaml(read_text(path))  # JSON is YAML too
    except SpecProblems as error:
        raise BadSpecError(f"training.validation.libraries: {error}") from None
    if not isinstance(document, dict | list) or not document:
        raise BadSpecError(f"{where} holds no prompts: write names with texts, or a list")
    return [_prompt(where, str(name), entry) for name, entry in _entries(document)]


def _entries(document: dict[object, object] | list[object]) -> Iterator[tuple[object, object]]:
    yield from document.items() if isinstance(document, dict) else enumerate(document)


def _prompt(where: str, name: str, entry: object) -> PromptSpec:
    try:
        found = _PROMPT.validate_python(entry)
    except ValidationError as error:
        first = problems_of(error, PromptSpec, entry)[0]
        raise BadSpecError(f"{where}: {name}: {first}") from None
    own = None if name.isdigit() else name[:120]
    return found if found.name else found.model_copy(update={"name": own})


def checked(spec: TrainingSpec, drawn: ValidationSpec) -> ValidationSpec:
    """``drawn``, once its prompts fit the rest of ``spec`` as those in a job file must.

    Raises:
        BadSpecError: they do not.
    """
    document = spec.model_copy(update={"validation": drawn}).model_dump()
    try:
        TrainingSpec.model_validate(document)
    except ValidationError as error:
        first = problems_of(error, TrainingSpec, document)[0]
        raise BadSpecError(f"training.validation.libraries: {first}") from None
    return drawn
