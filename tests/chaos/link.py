"""A network link between the daemon and the server that can be cut or can silently lose everything."""

import json
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support import Server

_NOBODY = "02:00:00:00:00:99"
_SERVER, _DAEMON, _NETWORK = "10.213.7.1", "10.213.7.2", "10.213.7.0/30"


@dataclass(frozen=True)
class Link:
    """A network namespace for the daemon, linked to the server.

    `prefix` starts a program in the namespace; `server` is the address of the server as seen from there.
    """

    name: str
    server: str = _SERVER

    @property
    def prefix(self) -> Sequence[str]:
        return "ip", "netns", "exec", self.name

    @contextmanager
    def swallowing(self) -> Iterator[None]:
        """Loses everything that is sent; neither end is notified."""
        self.address(_NOBODY, _NOBODY)
        try:
            yield
        finally:
            self.address(self.mac_of_daemon(), self.mac_of_server())

    @contextmanager
    def pulled(self) -> Iterator[None]:
        """Takes the link down; the system notices."""
        _ip("link", "set", self.name, "down")
        try:
            yield
        finally:
            _ip("link", "set", self.name, "up")
            self.address(self.mac_of_daemon(), self.mac_of_server())

    def address(self, daemon: str, server: str) -> None:
        """Sets the hardware address at which each end looks for the other."""
        _neighbour((), _DAEMON, daemon, self.name)
        _neighbour(("-n", self.name), _SERVER, server, "cable")

    def mac_of_server(self) -> str:
        return _mac((), self.name)

    def mac_of_daemon(self) -> str:
        return _mac(("-n", self.name), "cable")


@contextmanager
def plugged(server: Server) -> Iterator[Link]:
    """Creates a network namespace for the daemon; raises CalledProcessError if the system refuses."""
    link = Link(f"cable{secrets.token_hex(4)}")
    _ip("netns", "add", link.name)
    try:
        _ip("link", "add", link.name, "type", "veth", "peer", "name", "cable", "netns", link.name)
        _ip("address", "add", f"{_SERVER}/30", "dev", link.name)
        _ip("-n", link.name, "address", "add", f"{_DAEMON}/30", "dev", "cable")
        _ip("link", "set", link.name, "up")
        _ip("-n", link.name, "link", "set", "cable", "up")
        _ip("-n", link.name, "link", "set", "lo", "up")
        link.address(link.mac_of_daemon(), link.mac_of_server())
        _listen(server)
        yield link
    finally:
        _ip("netns", "delete", link.name)


def _listen(server: Server) -> None:
    """Restarts the server so that it also accepts connections from the namespace."""
    server.stop()
    with open(server.folder / "data" / "pg_hba.conf", "a") as rules:
        rules.write(f"host all all {_NETWORK} scram-sha-256\n")
    server.start("fsync=off", "listen_addresses=*")


def _neighbour(place: Sequence[str], address: str, mac: str, device: str) -> None:
    _ip(*place, "neighbour", "replace", address, "lladdr", mac, "dev", device, "nud", "permanent")


def _mac(place: Sequence[str], device: str) -> str:
    ((link),) = json.loads(_ip("-json", *place, "link", "show", "dev", device))
    return str(link["address"])


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
