"""Certificates made on the spot: a CA of the test's own and everything that can be wrong with one."""

import base64
import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


@dataclass
class Pair:
    cert: bytes  # PEM
    key: bytes  # PEM
    cert_path: str
    key_path: str
    x509: object
    private: object


class Certs:
    """ca, server (localhost, 127.0.0.1, ::1), client, expired, wrong_name (all by ca); other_ca, other_server, other_client."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.ca = self._make("ca", "Test CA", ca=True)
        self.other_ca = self._make("other_ca", "Other CA", ca=True)
        here = ["localhost", "127.0.0.1", "::1"]
        self.server = self._make("server", "localhost", issuer=self.ca, names=here)
        self.client = self._make("client", "test client", issuer=self.ca, client=True)
        self.expired = self._make("expired", "localhost", issuer=self.ca, names=here, days=(-30, -1))
        self.wrong_name = self._make("wrong_name", "elsewhere.example", issuer=self.ca, names=["elsewhere.example"])
        self.other_server = self._make("other_server", "localhost", issuer=self.other_ca, names=here)
        self.other_client = self._make("other_client", "stranger", issuer=self.other_ca, client=True)

    @staticmethod
    def b64(pem):
        """For the *Base64 fields."""
        return base64.b64encode(pem).decode()

    def make_server(self, name, names, **kw):
        """One more certificate by the CA, for these DNS names and addresses."""
        return self._make(name, kw.pop("common_name", names[0]), issuer=kw.pop("issuer", self.ca), names=names, **kw)

    def make_client(self, name, common_name, issuer=None):
        return self._make(name, common_name, issuer=issuer or self.ca, client=True)

    def _make(self, name, common_name, *, issuer=None, names=(), days=(-1, 30), ca=False, client=False):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.x509.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * DAY)
            .not_valid_after(now + days[1] * DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_alt(n) for n in names]), critical=False)
        if not ca:
            usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.private.public_key()), critical=False
            )
        cert = builder.sign(issuer.private if issuer else key, hashes.SHA256())
        pem = cert.public_bytes(serialization.Encoding.PEM)
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        cert_path, key_path = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        cert_path.write_bytes(pem)
        key_path.write_bytes(key_pem)
        return Pair(pem, key_pem, str(cert_path), str(key_path), cert, key)


def _alt(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
