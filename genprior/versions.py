"""What numbers come from: the versions of packages."""

import importlib.metadata

import genprior


def versions(*packages: str) -> dict[str, str]:
    """Of this package and of others, by their names on PyPI."""
    return {"genprior": genprior.__version__, **{name: _version(name) for name in packages}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
