"""The card of a published model: what it is, how it was trained, how it is used."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from st_shared.redaction import Redactor
from st_shared.spec.dataset import DatasetSpec
from st_shared.spec.families import FAMILIES
from st_shared.spec.publishing import PublishSpec
from st_shared.spec.training import TrainingSpec
from st_shared.spec.validation import PromptSpec

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TASKS = {"image": "text-to-image", "video": "text-to-video", "audio": "text-to-audio"}
_MOST_WIDGETS = 16
_NO_SECRETS = Redactor({})


def model_card(
    publish: PublishSpec,
    spec: TrainingSpec,
    step: int,
    samples: Sequence[str],
    prompts: Sequence[PromptSpec],
    redactor: Redactor = _NO_SECRETS,
) -> str:
    """The card as Markdown behind its data in YAML; ``samples`` are names of published pictures.

    ``redactor`` takes secrets out before YAML and Markdown quote what they consist of.
    """
    told = _Told(publish, spec, samples, prompts, redactor)
    data = ModelCardData(**redactor.json(_data(told))).to_yaml()
    return f"---\n{data}\n---\n\n" + "\n".join(_lines(told, step))


@dataclass(frozen=True)
class _Told:
    """What a card is made of."""

    publish: PublishSpec
    spec: TrainingSpec
    samples: Sequence[str]
    prompts: Sequence[PromptSpec]
    redactor: Redactor

    def plain(self, text: str) -> str:
        return _plain(self.redactor.text(text))

    def code(self, text: str) -> str:
        return _code(self.redactor.text(text))


def _data(told: _Told) -> dict[str, Any]:
    publish, spec, samples, prompts = told.publish, told.spec, told.samples, told.prompts
    base, names = _base(spec), _dataset_names(spec.datasets)
    more: dict[str, Any] = {}
    if publish.trigger:
        more["instance_prompt"] = publish.trigger
    if samples and prompts:
        shown = [{"text": each.prompt} for each in prompts[:_MOST_WIDGETS]]
        shown[0] |= {"output": {"url": samples[0]}}  # type: ignore[dict-item]
        more["widget"] = shown
    return {
        "base_model": base if base and _REPOSITORY.fullmatch(base) else None,
        "datasets": [each for each in names if _REPOSITORY.fullmatch(each)] or None,
        "library_name": "diffusers",
        "license": publish.license,
        "pipeline_tag": _TASKS[FAMILIES[spec.model.family].media],
        "tags": [spec.model.family, spec.adapter_kind, "st-fleet"],
        **more,
    }


def _lines(told: _Told, step: int) -> list[str]:
    publish, spec, samples = told.publish, told.spec, told.samples
    name = publish.address.rstrip("/").rpartition("/")[2]
    lines = [f"# {told.plain(name)}", "", _sentence(told, step), ""]
    if publish.trigger:
        lines += ["## Trigger", "", f"Use {told.code(publish.trigger)} in the prompt.", ""]
    if samples:
        lines += ["## Samples", ""]
        lines += [f"![samples]({each})" for each in samples]
        lines += ["", "Prompts, in order:", ""]
        lines += [f"- {told.code(each.prompt)}" for each in told.prompts]
        lines += [""]
    names = ", ".join(told.plain(each) for each in _dataset_names(spec.datasets)) or "not named"
    lines += ["## Training", "", f"Datasets: {names}.", "", "```yaml"]
    return [*lines, _settings(told), "```", ""]


def _sentence(told: _Told, step: int) -> str:
    spec, base = told.spec, _base(told.spec)
    beside = f" for {told.code(base)}" if base else ", trained from scratch"
    kind = "weights" if spec.adapter_kind == "full" else spec.adapter_kind
    return f"`{kind}` of the family `{spec.model.family}`{beside}, after {step:,} steps."


def _settings(told: _Told) -> str:
    """What decides the result, without places on the machine that it was made on."""
    spec = told.spec
    left_out = {"datasets", "hooks", "trackers", "publish", "cache", "validation"}
    document = spec.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
    document["model"] = {"family": spec.model.family, "config": spec.model.config}
    document["adapter"] = spec.adapter.model_dump(
        mode="json", exclude_defaults=True, exclude={"continue_from"}
    )
    text: str = yaml.safe_dump(told.redactor.json(document), sort_keys=False, allow_unicode=True)
    return text.rstrip().replace("```", "'''")


def _base(spec: TrainingSpec) -> str | None:
    """The id of the repository, or the last name of a path: where it lies is nobody's business."""
    base = spec.model.base
    if base is None:
        return None
    return base if _REPOSITORY.fullmatch(base) and not Path(base).exists() else Path(base).name


def _dataset_names(datasets: Sequence[DatasetSpec]) -> list[str]:
    """Names of datasets, ids of repositories, and last names of folders."""
    found = []
    for each in datasets:
        path = each.path or ""
        is_id = each.format == "huggingface" and _REPOSITORY.fullmatch(path)
        found.append(each.name or (path if is_id else path.rstrip("/").rpartition("/")[2]))
    return list(dict.fromkeys(found))


def _plain(text: str) -> str:
    """One line of text that Markdown and HTML take for text."""
    return re.sub(r"([\\`*_{}\[\]<>()#!|&])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Text as code, in one line, whatever back ticks it holds."""
    line = " ".join(text.split())
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}" if longest else f"`{line}`"
