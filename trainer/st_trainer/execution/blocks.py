"""The blocks that a model repeats: what is computed anew, compiled and offloaded as one."""

from torch import nn


def repeated_blocks(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Blocks in the order of the model, with their names; none lies inside another.

    They are of the classes that Diffusers names for its model, or the members of lists of modules.
    """
    kinds = getattr(module, "_repeated_blocks", None) or getattr(module, "_no_split_modules", None)
    found = [
        (name, each)
        for name, each in module.named_modules()
        if type(each).__name__ in (kinds or ())
    ]
    if not found:
        found = [
            (f"{name}.{index}", each)
            for name, parent in module.named_modules()
            if isinstance(parent, nn.ModuleList)
            for index, each in enumerate(parent)
        ]
    return outermost(found)


def outermost(found: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Those that lie in none of the others."""
    kept: list[tuple[str, nn.Module]] = []
    for name, each in sorted(found, key=lambda pair: pair[0].count(".")):
        if not any(name.startswith(f"{other}.") for other, _ in kept):
            kept.append((name, each))
    order = {name: place for place, (name, _) in enumerate(found)}
    return sorted(kept, key=lambda pair: order[pair[0]])
