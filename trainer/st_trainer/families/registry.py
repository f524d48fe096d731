"""Every family that can be trained; a test keeps the names equal to the shared catalogue.

A family's file imports torch and what lies here, never diffusers or transformers: their classes
are named as text and imported when a model is loaded.
"""

from typing import Any

from st_trainer.families.ace_step import AceStep
from st_trainer.families.family import FamilyCode
from st_trainer.families.flux import Flux
from st_trainer.families.kontext import Kontext
from st_trainer.families.pixart import Pixart
from st_trainer.families.pixel_dit import PixelDitFamily
from st_trainer.families.sd1 import Sd1
from st_trainer.families.sd3 import Sd3
from st_trainer.families.sdxl import Sdxl
from st_trainer.families.wan import Wan
from st_trainer.families.wan_i2v import WanI2V

REGISTRY: dict[str, FamilyCode[Any]] = {
    code.name: code
    for code in (
        AceStep(),
        Flux(),
        Kontext(),
        Pixart(),
        PixelDitFamily(),
        Sd1(),
        Sd3(),
        Sdxl(),
        Wan(),
        WanI2V(),
    )
}
