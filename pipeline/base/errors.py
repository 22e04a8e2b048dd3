"""The error that a user can mend."""


class InputError(ValueError):
    """Something in the user's data, params or files is not as it must be; the message says what, where and the remedy."""
