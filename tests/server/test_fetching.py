import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from modelport.errors import Forbidden, InvalidRequest, ModelportError, TooLarge
from modelport.server.fetching import Fetcher
from modelport.services.files import Folder


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        self.wfile.write(b"x" * 1000)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def fetcher(*allowed: str, most_bytes: int = 10_000, address: str = "") -> Fetcher:
    if not address:
        return Fetcher(allowed, most_bytes=most_bytes)
    return Fetcher(allowed, most_bytes=most_bytes, resolve=lambda host, port: [address])


def test_a_listed_address_is_fetched(port: int) -> None:
    folder = Folder()
    upload = fetcher("127.0.0.1").fetch(f"http://127.0.0.1:{port}/a/cat.png?x=1", folder)
    assert upload.read() == b"x" * 1000
    assert upload.content_type == "image/png"
    assert upload.path().name.endswith("cat.png")
    folder.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://example.com/",
        "http://0.0.0.0/",
    ],
)
def test_nothing_is_fetched_by_default_and_the_option_is_named(url: str) -> None:
    with pytest.raises(Forbidden, match="--url-allow"):
        fetcher().fetch(url, Folder())


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "fd00::1", "::1"]
)
def test_a_listed_name_may_not_lead_into_a_private_network(address: str) -> None:
    with pytest.raises(Forbidden, match="private network"):
        fetcher("images.example", address=address).fetch("http://images.example/a", Folder())


def test_a_listed_port_is_that_port_only(port: int) -> None:
    assert fetcher(f"127.0.0.1:{port}").fetch(f"http://127.0.0.1:{port}/", Folder()).read()
    with pytest.raises(Forbidden):
        fetcher("127.0.0.1:1").fetch(f"http://127.0.0.1:{port}/", Folder())


def test_a_redirect_is_looked_at_like_a_first_url(port: int) -> None:
    allowed = fetcher(f"127.0.0.1:{port}")
    with pytest.raises(Forbidden):
        allowed.fetch(f"http://127.0.0.1:{port}/to/http://127.0.0.2:{port}/", Folder())
    with pytest.raises(InvalidRequest, match="only http"):
        allowed.fetch(f"http://127.0.0.1:{port}/to/file:///etc/passwd", Folder())
    loop = f"http://127.0.0.1:{port}/to/" * 8
    with pytest.raises(InvalidRequest, match="redirected more than"):
        allowed.fetch(loop, Folder())


def test_a_file_is_bounded(port: int) -> None:
    folder = Folder()
    with pytest.raises(TooLarge):
        fetcher("127.0.0.1", most_bytes=999).fetch(f"http://127.0.0.1:{port}/", folder)
    folder.close()


@pytest.mark.parametrize(
    "url", ["ftp://a/", "http://", "http://u:p@127.0.0.1/", "http://127.0.0.1/ x", "http://a:b/"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ModelportError):
        fetcher("127.0.0.1", "a").fetch(url, Folder())
