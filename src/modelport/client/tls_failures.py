"""What went wrong with TLS, in words for whoever called."""

import ssl

__all__ = ["explain_tls"]


def explain_tls(exc: ssl.SSLError) -> str:
    """Say what happened and what to do; goes after "the server at HOST"."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        text = f"has a certificate that is not trusted: {exc.verify_message}"
        if exc.verify_code in _UNKNOWN_ISSUER:
            text += "; name its authority with an ssl_context, or in the file of SSL_CERT_FILE"
        return text
    if isinstance(exc, ssl.SSLEOFError):
        return "closed the connection without the goodbye of TLS"
    reason = getattr(exc, "reason", None) or "unknown"
    if reason in _NO_TLS:
        return "speaks no TLS there; call it with http://"
    if reason in _WANTS_CERTIFICATE:
        return (
            "does not take this client's certificate, or asks for one where there is none; show "
            "one with an ssl_context"
        )
    return f"failed at TLS: {reason.replace('_', ' ').lower()}"


# Source: x509_vfy.h of OpenSSL.
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
_NO_TLS = frozenset(
    {
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)
_WANTS_CERTIFICATE = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)
