"""The user under which PostgreSQL's programs run: they refuse root, and initdb a user without a name."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from db.embedded.keeper import Account
from processing.errors import Misconfigured


def mapped() -> Account:
    """Returns this user under the number of a user with a name, in a user namespace."""
    users = [user for user in pwd.getpwall() if user.pw_uid]
    user = next((user for user in users if user.pw_name == "nobody"), users[0] if users else None)
    uid, gid = (user.pw_uid, user.pw_gid) if user else (1000, 1000)
    return Account(prefix=("unshare", "--user", f"--map-user={uid}", f"--map-group={gid}"))


def choose_account(folder: Path, cluster: Path, binaries: Path) -> Account:
    """Chooses the user for the server: this one if possible, for root the files' owner."""
    if os.geteuid() != 0 and (cluster.exists() or _has_name(os.geteuid())):
        return Account()
    for account in possible_accounts(cluster):
        if can_run(account, folder, binaries):
            return account
    if os.geteuid() != 0:
        raise Misconfigured(
            f"PostgreSQL can't make a database for the user {os.geteuid()}, which has no name: add it to "
            "/etc/passwd, let a user with a name make DATA_FOLDER and give it to this one, "
            "or set DATABASE_URL."
        )
    raise Misconfigured(
        f"PostgreSQL refuses to run as root, and the user for it can't enter {folder} or {binaries}: "
        "set DATA_FOLDER to a folder that others may enter, start this as another user, or set DATABASE_URL."
    )


def user_name(uid: int) -> str:
    """Returns the name of a user, or the number if there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _has_name(uid: int) -> bool:
    with suppress(KeyError):
        pwd.getpwuid(uid)
        return True
    return False


def possible_accounts(cluster: Path) -> Iterator[Account]:
    if os.geteuid() != 0:
        yield mapped()
    elif not cluster.exists():
        with suppress(KeyError):
            nobody = pwd.getpwnam("nobody")
            yield Account(nobody.pw_uid, nobody.pw_gid)
        yield mapped()
    else:
        owner = cluster.stat()
        yield Account(owner.st_uid, owner.st_gid) if owner.st_uid else mapped()


def can_run(account: Account, folder: Path, binaries: Path) -> bool:
    script = 'cd "$0" && exec "$1/postgres" --version'
    command = [*account.prefix, "/bin/sh", "-c", script, str(folder), str(binaries)]
    try:
        return subprocess.run(command, capture_output=True, **account.identity()).returncode == 0
    except OSError:
        return False
