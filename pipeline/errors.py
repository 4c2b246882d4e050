"""The one error for what the user can mend."""


class UserError(Exception):
    """Say in one sentence what is wrong and how to mend it; the command line prints it without a stack trace.

    `usage` marks a wrong command or experiment (exit code 2); otherwise a job failed (exit code 1).
    """

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage
