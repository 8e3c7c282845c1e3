"""Brings the Julia packages of a GPU into the project that juliapkg keeps; which they are is changed here."""

from __future__ import annotations

from collections.abc import Callable

from photoflux.engines.flux.julia_found import option
from photoflux.engines.flux.julia_setup import add_command, settle
from photoflux.errors import SettingError, unknown_name

# Of each device: its packages, with the UUID and the versions that Project.toml's extension fits.
PACKAGES = {
    "cuda": (
        ("CUDA", "052768ef-5323-5732-b1bb-66c8b64840ba", "5"),
        ("cuDNN", "02a925ec-e4fe-4b08-9a7e-0d78e3d38ccd", "1"),
    ),
    "amdgpu": (("AMDGPU", "21141c5a-9bdb-4563-92ae-f87d6854732e", ""),),
    "metal": (("Metal", "dde4c033-4e86-420c-a63e-0dd931031962", ""),),
}


def add_device(name: str, say: Callable[[str], None]) -> None:
    """Require the Julia packages of a device, and install them.

    Parameters
    ----------
    name : str
        ``"cuda"``, ``"amdgpu"`` or ``"metal"``.
    say : callable
        Takes the lines of the installation as they come.

    Raises
    ------
    SettingError
        If there is no such device, or Julia's project is one that a setting names, which is nobody's but its owner's
        to change; the message has the command for it.
    FluxError
        If they cannot be installed; its kind says why.
    """
    if name not in PACKAGES:
        raise unknown_name("add", name, tuple(PACKAGES))
    project = option("project")
    if project is not None:
        names = ", ".join(f'"{package}"' for package, *_ in PACKAGES[name])
        raise SettingError(
            f"PYTHON_JULIACALL_PROJECT names Julia's project, {project}, which PhotoFlux does not change. "
            f"Run: {add_command(project, f'[{names}]')}"
        )
    import juliapkg

    for package, uuid, version in PACKAGES[name]:
        juliapkg.add(package, uuid, **({"version": version} if version else {}))
        say(f"Julia's package {package} is required from now on.")
    settle(say)
