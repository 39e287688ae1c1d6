"""The one error that is shown to a user."""

from pipelines.texts import visible


class UserError(Exception):
    """A mistake that the user can mend, told in one sentence.

    The sentence names the field or file, what was found, what was expected and how to mend it; the command
    line prints it without a traceback. Names from files may hold anything: the sentence stays on one line.
    """

    def __str__(self) -> str:
        return visible(super().__str__())
