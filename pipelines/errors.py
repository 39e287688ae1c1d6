"""The one error that is shown to a user."""


class UserError(Exception):
    """A mistake that the user can mend, told in one sentence.

    The sentence names the field or file, what was found, what was expected and how to mend it; the command
    line prints it without a traceback.
    """
