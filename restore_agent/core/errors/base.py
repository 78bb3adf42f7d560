"""The root of the errors, and those that belong to no part."""

from __future__ import annotations

from typing import ClassVar, Self

AGAIN = "Run the command again. It keeps the files on disk and resumes."


class AgentError(Exception):
    """The root of all errors: what happened, to which archive, what is left on disk, and the next step.

    `message` is one sentence. `archive` is a file name or job ID; `left` describes the files on disk; `spent` is
    True or False if a download was at stake, else None; `hint` replaces the hint of the class. An error is a value:
    it is complete when it is raised, or completed by `with_context`. A subclass gives its ID and exit code as keywords.
    """

    id: ClassVar[str] = "defect"
    exit_code: int = 1
    hint: str = "This is a defect of restore-agent: run again with --debug and report what it prints."

    def __init_subclass__(cls, *, id: str | None = None, exit_code: int | None = None) -> None:
        super().__init_subclass__()
        if id is not None:
            cls.id = id
        if exit_code is not None:
            cls.exit_code = exit_code

    def __init__(
        self,
        message: str,
        *,
        archive: str | None = None,
        left: str | None = None,
        spent: bool | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.archive = archive
        self.left = left
        self.spent = spent
        self.hint = hint or type(self).hint

    def with_context(
        self,
        *,
        message: str | None = None,
        archive: str | None = None,
        left: str | None = None,
        spent: bool | None = None,
        exit_code: int | None = None,
        hint: str | None = None,
    ) -> Self:
        """Return a copy with the given fields; None leaves a field as it is."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        copied.__cause__, copied.__traceback__ = self.__cause__, self.__traceback__
        texts = {"message": message, "archive": archive, "left": left, "hint": hint}
        given = {**texts, "spent": spent, "exit_code": exit_code}
        for name, value in given.items():
            if value is not None:
                setattr(copied, name, value)
        copied.args = (copied.message,)
        return copied

    def fields(self) -> dict[str, object]:
        """Return the error as plain values, for a line of JSON."""
        known = {"id": self.id, "exit_code": self.exit_code, "message": self.message, "file_name": self.archive}
        return known | {"on_disk": self.left, "download_spent": self.spent, "hint": self.hint}


class UsageError(AgentError, id="usage", exit_code=2):
    """An option, variable, configuration key, or key file cannot be used."""

    hint = "See `restore-agent run --help`."


class Stopped(AgentError, id="stopped"):
    """SIGHUP, SIGINT, or SIGTERM: stopped cleanly, state kept. `exit_code` is 129, 130, or 143."""

    hint = AGAIN

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OutputUnwritable(AgentError, id="output-unwritable", exit_code=41):
    """The output of a command whose product it is cannot be written."""

    hint = "Check where the output goes: a full disk, a closed pipe."
