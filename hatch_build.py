"""Puts the Julia package into the wheel. An editable install uses the checkout's own, so nothing is copied then."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class JuliaPackage(BuildHookInterface):
    """Adds the Julia sources, and the ``juliapkg.json`` that points at them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files of a standard wheel; hatchling calls this before it builds one."""
        if version != "editable":
            build_data["force_include"] |= {
                "python/photoflux/juliapkg.wheel.json": "photoflux/juliapkg.json",
                **{name: f"photoflux/PhotoFlux.jl/{name}" for name in ("Project.toml", "src", "julia", "ext")},
            }
