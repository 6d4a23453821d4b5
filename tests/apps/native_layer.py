"""The middle of the chain."""

from pydantic_core import __version__ as VERSION  # noqa: F401, N812
