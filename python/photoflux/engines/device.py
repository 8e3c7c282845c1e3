"""Where the Flux engine computes; what is said of a device by name is checked here."""

from __future__ import annotations

from dataclasses import dataclass

from photoflux.errors import SettingError, unknown_name

# The names of julia/devices/devices.jl.
DEVICES = ("cpu", "cuda", "amdgpu", "metal")


@dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes
    ----------
    name : str
        ``"cuda"``, ``"amdgpu"`` or ``"metal"``.
    tf32 : bool
        Whether products of a fit may round their factors to 10 bits; otherwise all is Float32.
    """

    name: str
    tf32: bool = False


def device_of(name: str, tf32: bool = False) -> Device | None:
    """Return the device of a name; None: the CPU.

    Raises
    ------
    SettingError
        If there is no such device, or TF32 is asked of the CPU.
    """
    if name not in DEVICES:
        raise unknown_name("device", name, DEVICES)
    if name != "cpu":
        return Device(name, tf32)
    if tf32:
        raise SettingError("`tf32` is of a GPU, and the device is the CPU. Give `device` too.")
    return None
