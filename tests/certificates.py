"""Certificates of the tests' own, made with openssl."""

import subprocess
from pathlib import Path


def make_ca(folder: Path, name: str) -> Path:
    """Makes an authority, whose key is beside its certificate."""
    subject = ["-subj", f"/CN={name}", "-days", "2"]
    _openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key",
             "-out", f"{name}.crt", *subject)  # fmt: skip
    return folder / f"{name}.crt"


def make_certificate(folder: Path, ca: Path) -> None:
    """Makes server.crt and server.key, for the address 127.0.0.1, and no name."""
    _openssl(folder, "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key",
             "-out", "server.csr", "-subj", "/CN=server")  # fmt: skip
    (folder / "names").write_text("subjectAltName = IP:127.0.0.1\n")
    _openssl(folder, "x509", "-req", "-in", "server.csr", "-CA", str(ca), "-CAkey", f"{ca.stem}.key",
             "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "server.crt")  # fmt: skip
    (folder / "server.key").chmod(0o600)


def make_client_certificate(folder: Path, ca: Path, name: str, password: str) -> None:
    """Makes a certificate that names a client, and its key, which has a password."""
    _openssl(folder, "req", "-new", "-newkey", "rsa:2048", "-passout", f"pass:{password}",
             "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
    _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", str(ca), "-CAkey", f"{ca.stem}.key",
             "-CAcreateserial", "-days", "2", "-out", f"{name}.crt")  # fmt: skip


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
