import contextlib
import socket
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from modelport.server.settings import Settings
from modelport.server.tls import TlsUnusable, server_context
from tests.served import serving


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
    other = authority.issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
    blobs = {
        "cert": b"".join(blob.bytes() for blob in certificate.cert_chain_pems),
        "key": certificate.private_key_pem.bytes(),
        "other_key": other.private_key_pem.bytes(),
        "ca": authority.cert_pem.bytes(),
        "text": b"this is no certificate\n",
        "locked_key": load_pem_private_key(certificate.private_key_pem.bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        ),
    }
    for name, blob in blobs.items():
        (folder / name).write_bytes(blob)
    return {name: str(folder / name) for name in blobs}


def test_without_a_certificate_there_is_no_tls() -> None:
    assert server_context(Settings()) is None


def test_a_certificate_and_its_key_are_enough(files: dict[str, str]) -> None:
    context = server_context(Settings(tls_cert=files["cert"], tls_key=files["key"]))
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_authorities_make_a_client_certificate_a_condition(files: dict[str, str]) -> None:
    settings = Settings(tls_cert=files["cert"], tls_key=files["key"], tls_client_ca=files["ca"])
    context = server_context(settings)
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("cert", "key", "ca", "text"),
    [
        ("missing", "key", None, r'--tls-cert: cannot read ".*missing": No such file'),
        ("cert", "missing", None, r'--tls-key: cannot read ".*missing": No such file'),
        ("cert", "key", "missing", r'--tls-client-ca: cannot read ".*missing": No such file'),
        ("text", "key", None, r'--tls-cert: ".*text" holds no certificate chain in PEM form'),
        ("key", "key", None, r'--tls-cert: ".*key" holds no certificate chain in PEM form'),
        ("cert", "text", None, r'--tls-key: ".*text" holds no private key in PEM form'),
        ("cert", "other_key", None, r'--tls-key: ".*other_key" is not the key of the certificate'),
        ("cert", "locked_key", None, r'--tls-key: ".*locked_key" is encrypted; decrypt it'),
        ("cert", "key", "text", r'--tls-client-ca: ".*text" holds no certificate in PEM form'),
    ],
)
def test_an_unusable_file_is_named_with_what_is_wrong(
    files: dict[str, str], cert: str, key: str, ca: str | None, text: str
) -> None:
    folder = Path(files["cert"]).parent
    settings = Settings(
        tls_cert=str(folder / cert),
        tls_key=str(folder / key),
        tls_client_ca=None if ca is None else str(folder / ca),
    )
    with pytest.raises(TlsUnusable, match=text):
        server_context(settings)


def test_a_handshake_takes_no_longer_than_the_head_of_a_request(
    files: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "add.py").write_text(
        "import modelport\n\n\n@modelport.model\ndef add(a: int) -> int:\n    return a + 1\n"
    )
    options = ["--tls-cert", files["cert"], "--tls-key", files["key"], "--header-timeout-secs", "1"]
    with serving(str(tmp_path / "add.py"), *options) as served:
        host, _, port = served.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=15) as client:
            # What a client of TLS says first, begun.
            client.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1000) == b""
