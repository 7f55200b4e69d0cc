"""TLS from the operator's files, checked when the server starts."""

import ssl
from pathlib import Path

from modelport.errors import ModelportError
from modelport.server.settings import Settings

__all__ = ["TlsUnusable", "server_context"]


class TlsUnusable(ModelportError):
    """A certificate, key or list of authorities cannot be used; the text is for the operator."""


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """Make what the listeners need for TLS; ``None`` if it is not asked for.

    TLS 1.2 at least. With ``tls_client_ca`` a client without a certificate from one of these
    authorities gets no connection.

    Raises:
        TlsUnusable: If a file is not there, holds no PEM, or the key is another certificate's.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    cert, key = _file(settings.tls_cert, "--tls-cert"), _file(settings.tls_key, "--tls-key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password to give, OpenSSL would ask on the terminal of a server.
        context.load_cert_chain(cert, key, password=_no_password)
    except _EncryptedKey as exc:
        raise TlsUnusable(
            f'--tls-key: "{key}" is encrypted; decrypt it with "openssl pkey -in {key} -out ..." '
            "and protect the file by its permissions"
        ) from exc
    except (ssl.SSLError, OSError) as exc:
        raise TlsUnusable(_chain_text(cert, key, exc)) from exc
    if settings.tls_client_ca is not None:
        authorities = _file(settings.tls_client_ca, "--tls-client-ca")
        try:
            context.load_verify_locations(cafile=authorities)
        except (ssl.SSLError, OSError) as exc:
            raise TlsUnusable(
                f'--tls-client-ca: "{authorities}" holds no certificate in PEM form'
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


def _chain_text(cert: Path, key: Path, exc: ssl.SSLError | OSError) -> str:
    reason = getattr(exc, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return f'--tls-key: "{key}" is not the key of the certificate "{cert}"'
    blame = "--tls-cert" if b"-----BEGIN CERTIFICATE" not in cert.read_bytes() else "--tls-key"
    wanted = "certificate chain" if blame == "--tls-cert" else "private key"
    path = cert if blame == "--tls-cert" else key
    return f'{blame}: "{path}" holds no {wanted} in PEM form'
