# SPDX-License-Identifier: MPL-2.0
"""Letters to the owners of failing hooks reach a real mail server, encrypted, and no other one."""

import datetime
import email
import email.policy
import ipaddress
import ssl

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from local_queue import free_port
from support import eventually, hook, unique
from test_startup import daemon, environment

USER, PASSWORD = "hooks", "a password for letters"


def certificate(folder):
    """An authority for one server at 127.0.0.1: the files of the authority, the server and the server's key."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def issue(name, key, issuer, issuer_key, *extensions):
        builder = x509.CertificateBuilder(
            issuer_name=issuer,
            subject_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - datetime.timedelta(hours=1),
            not_valid_after=now + datetime.timedelta(days=1),
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(issuer_key, hashes.SHA256())

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority of a test")])
    root = issue("authority of a test", root_key, root_name, root_key, x509.BasicConstraints(ca=True, path_length=0))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    server = issue("mail", key, root_name, root_key, address)
    (folder / "ca.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    (folder / "mail.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    (folder / "mail.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "mail.pem", folder / "mail.key")
    return folder / "ca.pem", context


class MailServer:
    """A mail server that keeps what it gets, with how it got it."""

    def __init__(self, **options):
        self.letters, self.logins = [], []
        self.controller = Controller(self, hostname="127.0.0.1", port=free_port(), ready_timeout=60, **options)

    async def handle_DATA(self, server, session, envelope):
        self.letters.append((session.ssl is not None, session.authenticated, envelope))
        return "250 kept"

    def login(self, server, session, envelope, mechanism, data):
        is_known = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        self.logins.append(is_known)
        return AuthResult(success=is_known)

    def about(self, name):
        """The letters about a hook; other hooks of the suite may have owners as well."""
        parsed = [(*facts, email.message_from_bytes(each.content, policy=email.policy.default), each) for *facts, each in self.letters]
        return [each for each in parsed if each[2]["Subject"].endswith(f": nobody/{name}")]

    def __enter__(self):
        self.controller.start()
        self.port = self.controller.port
        return self

    def __exit__(self, *_):
        self.controller.stop()


@pytest.fixture
def failing(running):
    """A hook whose role does not exist, due every second, while nobody but the test fires schedules."""
    name = unique("powerless")
    running.suite.stop("scheduler")
    try:
        running.hooks().createHook("nobody", name, hook(name, schedule=["* * * * * *"]))
        yield name
    finally:
        running.hooks().removeHook("nobody", name)
        running.suite.start_services()


def settings(running, server, scheme="smtp", **more):
    return environment(
        running,
        "scheduler",
        SMTP_URL=f"{scheme}://127.0.0.1:{server.port}",
        MAIL_FROM="hooks@example.org",
        **more,
    )


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_letter_travels_encrypted_and_with_the_account(running, failing, scheme, tmp_path):
    authority, context = certificate(tmp_path)
    if scheme == "smtp":
        server = MailServer(tls_context=context, require_starttls=True, auth_required=True)
    else:
        server = MailServer(ssl_context=context, auth_required=True, auth_require_tls=False)
    server.controller.SMTP_kwargs["authenticator"] = server.login
    more = {"SMTP_CA_FILE": str(authority), "SMTP_USER": USER, "SMTP_PASSWORD": PASSWORD}
    with server, daemon("scheduler", settings(running, server, scheme, **more), tmp_path) as instance:
        eventually(lambda: server.about(failing), 90)
        assert instance.stop() == 0, instance.text()
        assert PASSWORD not in instance.text()
    is_encrypted, is_authenticated, message, envelope = server.about(failing)[0]
    assert (is_encrypted or scheme == "smtps") and is_authenticated and server.logins[0] is True
    assert envelope.mail_from == "hooks@example.org" and envelope.rcpt_tos == ["release@example.com"]
    assert message["To"] == "release@example.com" and message["From"].addresses[0].addr_spec == "hooks@example.org"
    assert message["Subject"] == f"[Taskcluster Hooks] Scheduled Hook failure: nobody/{failing}"
    assert message["Auto-Submitted"] == "auto-generated" and message["Message-ID"].endswith("@example.org>")
    assert f"hook `nobody/{failing}` came due" in message.get_content()
    assert "createTask InsufficientScopes" in message.get_content()
    assert len(server.about(failing)) == 1, "one letter for one reason"


def test_no_letter_goes_to_a_server_that_nobody_vouches_for(running, failing, tmp_path):
    _, context = certificate(tmp_path)
    with MailServer(tls_context=context) as server, daemon("scheduler", settings(running, server), tmp_path) as instance:
        eventually(lambda: "hook failure mail was not sent" in instance.text() and failing in instance.text(), 90)
        assert instance.stop() == 0, instance.text()
        assert server.letters == [] and "certificate" in instance.text()


def test_a_server_that_cannot_encrypt_gets_letters_only_if_that_is_allowed(running, failing, tmp_path):
    with MailServer() as server:
        with daemon("scheduler", settings(running, server), tmp_path) as instance:
            eventually(lambda: "hook failure mail was not sent" in instance.text() and failing in instance.text(), 90)
            assert instance.stop() == 0, instance.text()
        assert server.letters == []
        with daemon("scheduler", settings(running, server, SMTP_TLS="false"), tmp_path) as instance:
            eventually(lambda: server.about(failing), 90)
            assert instance.stop() == 0, instance.text()
    assert len(server.about(failing)) == 1
