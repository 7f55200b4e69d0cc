"""TLS from the operator's files, checked when the server starts."""

import ssl
from pathlib import Path

from modelport.errors import ModelportError
from modelport.server.settings import Settings

__all__ = ["TlsUnusable", "grpc_context", "server_context"]


class TlsUnusable(ModelportError):
    """A certificate, key or list of authorities cannot be used; the text is for the operator."""


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """Make what the listeners need for TLS; ``None`` if it is not asked for.

    TLS 1.2 at least. With ``tls_client_ca`` a client without a certificate from one of these
    authorities gets no connection.

    Raises:
        TlsUnusable: If a file is not there, holds no PEM, or the key is another certificate's.
    """
    return _context(settings.tls_cert, settings.tls_key, settings.tls_client_ca, "tls")


def grpc_context(settings: Settings) -> ssl.SSLContext | None:
    """Make the same for the gRPC port, which may have files of its own.

    Raises:
        TlsUnusable: As above.
    """
    if not settings.grpc_use_ssl and not settings.grpc_use_ssl_mutual:
        return server_context(settings)
    authorities = settings.grpc_root_cert if settings.grpc_use_ssl_mutual else None
    return _context(settings.grpc_server_cert, settings.grpc_server_key, authorities, "grpc")


def _context(
    cert_path: str | None, key_path: str | None, authorities_path: str | None, whose: str
) -> ssl.SSLContext | None:
    if cert_path is None or key_path is None:
        return None
    cert_flag, key_flag, authorities_flag = _FLAGS[whose]
    cert, key = _file(cert_path, cert_flag), _file(key_path, key_flag)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    # It costs the server more than the client, who may ask for it again and again.
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        # Without a password to give, OpenSSL would ask on the terminal of a server.
        context.load_cert_chain(cert, key, password=_no_password)
    except _EncryptedKey as exc:
        raise TlsUnusable(
            f'{key_flag}: "{key}" is encrypted; decrypt it with "openssl pkey -in {key} -out ..." '
            "and protect the file by its permissions"
        ) from exc
    except (ssl.SSLError, OSError) as exc:
        raise TlsUnusable(_chain_text(cert, key, exc, cert_flag, key_flag)) from exc
    if authorities_path is not None:
        authorities = _file(authorities_path, authorities_flag)
        try:
            context.load_verify_locations(cafile=authorities)
        except (ssl.SSLError, OSError) as exc:
            raise TlsUnusable(
                f'{authorities_flag}: "{authorities}" holds no certificate in PEM form'
            ) from exc
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class _EncryptedKey(Exception):
    pass


def _no_password() -> str:
    raise _EncryptedKey


def _file(path: str, flag: str) -> Path:
    found = Path(path).expanduser()
    try:
        with found.open("rb"):
            return found
    except OSError as exc:
        raise TlsUnusable(f'{flag}: cannot read "{found}": {exc.strerror}') from exc


def _chain_text(
    cert: Path, key: Path, exc: ssl.SSLError | OSError, cert_flag: str, key_flag: str
) -> str:
    reason = getattr(exc, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return f'{key_flag}: "{key}" is not the key of the certificate "{cert}"'
    blame = cert_flag if b"-----BEGIN CERTIFICATE" not in cert.read_bytes() else key_flag
    wanted = "certificate chain" if blame == cert_flag else "private key"
    path = cert if blame == cert_flag else key
    return f'{blame}: "{path}" holds no {wanted} in PEM form'


_FLAGS = {
    "tls": ("--tls-cert", "--tls-key", "--tls-client-ca"),
    "grpc": ("--grpc-server-cert", "--grpc-server-key", "--grpc-root-cert"),
}
