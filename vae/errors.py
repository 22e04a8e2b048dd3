"""What the library raises for others to handle. No torch is imported here."""


class OptionError(ValueError):
    """An option is unknown or out of its range, or options of a model do not go together."""


class ModelFileError(ValueError):
    """A model's files are missing, damaged, or do not belong together."""


class AcceleratorError(ValueError):
    """The accelerator, devices or precision asked for are not available on this machine."""


class DivergenceError(RuntimeError):
    """Training produced a loss that is not finite."""
