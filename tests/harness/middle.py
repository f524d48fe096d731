"""What may stand between a worker and its controller: proxies, and TLS of any quality."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID


@contextmanager
def proxy(upstream: str, *, buffers: bool = False) -> Iterator[str]:
    """The address of a proxy before ``upstream``; ``buffers``: it sends what is whole alone."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # a body ends with its connection

        def _pass(self) -> None:
            size = int(self.headers.get("content-length", 0))
            skipped = {"host", "connection", "accept-encoding"}
            headers = {k: v for k, v in self.headers.items() if k.lower() not in skipped}
            with httpx.stream(
                self.command,
                upstream + self.path,
                headers=headers,
                content=self.rfile.read(size),
                timeout=60,
            ) as reply:
                self.send_response(reply.status_code)
                for name, value in reply.headers.items():
                    if name not in {"transfer-encoding", "content-length", "connection"}:
                        self.send_header(name, value)
                self.end_headers()
                if buffers:
                    self.wfile.write(reply.read())
                else:
                    for piece in reply.iter_raw():
                        self.wfile.write(piece)

        do_GET = do_POST = do_PUT = _pass  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with serving(Handler) as url:
        yield url


@contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler], tls: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """The address of a server in a thread, with a certificate where ``tls`` gives one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        # The handshake belongs to the thread of a connection: a refused one ends only that.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def certificate(
    folder: Path, *, days: float = 90, since: float = 30, name: str = "127.0.0.1"
) -> tuple[Path, Path]:
    """A certificate that signs itself, for an IP address or a name, and its key."""
    now, key = datetime.now(UTC), ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "of a test")])
    is_ip = name.replace(".", "").isdigit()
    alternative = x509.IPAddress(ip_address(name)) if is_ip else x509.DNSName(name)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=since))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, secret = folder / "certificate.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return chain, secret
