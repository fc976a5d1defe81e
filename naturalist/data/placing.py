"""Where images and features lie while a model learns from them."""

from typing import Literal

import torch

from naturalist.errors import UserError
from naturalist.memory import DeviceMemory, machine_memory
from naturalist.wording import percent

RESIDENT_SHARE = 0.5
"""Share of the GPU's free memory, or of the machine's memory, that all of them may take; more is streamed."""

Place = Literal["device", "map", "file"]
"""``"device"``: copied there once; ``"map"``: the system keeps in memory what it read of the file; ``"file"``: a thread
reads it ahead of the device, see :mod:`naturalist.data.stream`."""


def choose_place(wanted: DeviceMemory, needed: int, device: torch.device) -> Place:
    """Where ``needed`` bytes of images or features lie; that ``auto`` streams them is said.

    Only a GPU has memory of its own. Elsewhere the map is as good, as long as the machine's memory holds all of it.

    Raises:
        UserError: when they are to be resident and the GPU has no room for them.
    """
    if device.type == "cuda":
        resident: Place = "device"
        there: int | None = torch.cuda.mem_get_info(device)[0]
        what = f"memory that {device} has free"
        if wanted == "resident" and there is not None and needed > there:
            raise UserError(
                f"device_memory is 'resident', but {device} has {there / 1e9:,.1f} GB free and the images need "
                f"{needed / 1e9:,.1f} GB; use --device_memory stream or auto."
            )
    else:
        resident, there, what = "map", machine_memory(), "memory of this machine"
    is_small = there is None or needed <= RESIDENT_SHARE * there
    if wanted == "resident" or (wanted == "auto" and is_small):
        return resident
    if wanted == "auto" and there is not None:
        print(
            f"{needed / 1e9:,.1f} GB of images or features take more than {percent(RESIDENT_SHARE, 0)} of the "
            f"{there / 1e9:,.1f} GB of {what}: they are streamed from the disk (--device_memory).",
            flush=True,
        )
    return "file"
