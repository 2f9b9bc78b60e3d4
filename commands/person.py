"""The person who types a command, as the ledger names who acknowledged or recalled a file."""

import os
import socket

from db.embedded.account import user_name


def who() -> str:
    """Returns the person at this terminal, else the user of this process, and the machine."""
    try:
        user = os.getlogin()  # also under sudo
    except OSError:
        user = user_name(os.getuid())
    return f"{user}@{socket.gethostname()}"
