"""The table of engines, for the group `engine` of the command line."""

from __future__ import annotations

ENGINES: dict[str, str] = {
    "local": "detpipe.engines.local:LocalEngine",
    "ray": "detpipe.engines.ray:RayEngine",
}
"""Word -> "module:Class". A new engine is one line here."""
