"""What OpenSSL says → what people hear."""

import ssl

import pytest

from modelport.client.tls_failures import explain_tls


def failed(reason: str) -> ssl.SSLError:
    exc = ssl.SSLError(1, f"[SSL: {reason}] {reason.lower()} (_ssl.c:1006)")
    exc.reason = reason
    return exc


@pytest.mark.parametrize(
    ("exc", "text"),
    [
        (failed("WRONG_VERSION_NUMBER"), "speaks no TLS there; call it with http://"),
        (failed("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "does not take this client's certificate"),
        (failed("NO_PROTOCOLS_AVAILABLE"), "failed at TLS: no protocols available"),
        (ssl.SSLError("unknown"), "failed at TLS: unknown"),
        (ssl.SSLEOFError(8, "EOF"), "closed the connection without the goodbye of TLS"),
    ],
)
def test_a_failure_says_what_to_do(exc: ssl.SSLError, text: str) -> None:
    assert explain_tls(exc).startswith(text)


@pytest.mark.parametrize(
    ("code", "message", "has_advice"),
    [
        (18, "self-signed certificate", True),
        (20, "unable to get local issuer certificate", True),
        (10, "certificate has expired", False),
        (62, "Hostname mismatch", False),
    ],
)
def test_only_an_unknown_authority_can_be_named(code: int, message: str, has_advice: bool) -> None:
    exc = ssl.SSLCertVerificationError(1, message)
    exc.verify_code, exc.verify_message = code, message
    text = explain_tls(exc)
    assert text.startswith(f"has a certificate that is not trusted: {message}")
    assert ("ssl_context" in text) is has_advice
