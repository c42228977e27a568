"""`configs/` at the project's top, by the name that it has where dit_jax is installed.

A wheel holds those files in place of this one: see pyproject.toml.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "configs")]
