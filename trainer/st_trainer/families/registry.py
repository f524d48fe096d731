"""Every family that can be trained; a test keeps the names equal to the shared catalogue."""

from typing import Any

from st_trainer.families.family import FamilyCode
from st_trainer.families.pixel_dit import PixelDitFamily

REGISTRY: dict[str, FamilyCode[Any]] = {code.name: code for code in (PixelDitFamily(),)}
