"""The version of this installation, as every service, the command line and the API report it."""

from importlib.metadata import version

VERSION = version("posthouse-shared")
