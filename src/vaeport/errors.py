"""Every error that vaeport raises on purpose.

VaeportError                    exit code 2
├── ConfigError                 config.json is missing, malformed, unsupported, or contradicts itself
│   └── UnknownModelError       no registered model answers to the class name
├── CheckpointError             a weight file cannot be used
│   ├── CorruptFileError        truncated, malformed, or lying about its sizes
│   ├── UnsafePickleError       the pickle wants to run code
│   └── KeyMismatchError        missing or unexpected keys, wrong shapes
├── InputError                  a tensor or an argument does not fit the model's contract
├── MediaError                  an image, video or audio file cannot be read or written
├── LatentFileError             a latent file cannot be read, or belongs to another model
├── DatasetError                an output folder of `vaeport dataset` is in use, damaged, or another run's
├── ProofError                  a proof cannot be set up
└── BlockedError                exit code 3: something outside vaeport is missing (an extra, the network, disk space)
"""

from __future__ import annotations


class VaeportError(Exception):
    """What went wrong, where, what was expected against what was found, and what to do next."""

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        found: object = None,
        fix: str | None = None,
    ) -> None:
        self.what, self.where, self.expected, self.found, self.fix = what, where, expected, found, fix
        rows = (("where", where), ("expected", expected), ("found", found), ("fix", fix))
        super().__init__("\n".join([what, *(f"  {name}: {value}" for name, value in rows if value is not None)]))


class ConfigError(VaeportError):
    """A configuration is missing, malformed, unsupported, or contradicts itself."""


class UnknownModelError(ConfigError):
    """No registered model answers to the class name."""


class CheckpointError(VaeportError):
    """A weight file cannot be used."""


class CorruptFileError(CheckpointError):
    """A weight file is truncated, malformed, or lies about its sizes."""


class UnsafePickleError(CheckpointError):
    """A pickle asks for code to be run; it is never run."""


class KeyMismatchError(CheckpointError):
    """Keys are missing or unexpected, or shapes differ."""


class InputError(VaeportError):
    """A tensor or an argument does not fit the model's contract."""


class MediaError(VaeportError):
    """An image, video or audio file cannot be read or written."""


class LatentFileError(VaeportError):
    """A latent file cannot be read, or was made under another contract."""


class DatasetError(VaeportError):
    """An output folder of `vaeport dataset` is in use, damaged, or belongs to another run."""


class ProofError(VaeportError):
    """A proof cannot be set up."""


class BlockedError(VaeportError):
    """Something outside vaeport is missing: an extra, the network, disk space, a permission."""

    exit_code = 3
