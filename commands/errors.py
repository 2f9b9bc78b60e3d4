"""The errors of commands that have nothing to do with loading."""


class QueryFailed(Exception):
    """The database refused the user's statement, or its rows can't be shown."""
