from doorward.wire.errors import ProtocolError
from doorward.wire.http.errors import HttpError


def test_whoever_catches_protocol_errors_catches_these_and_learns_the_status() -> None:
    error = HttpError("http_host", "no host", status=502)
    assert isinstance(error, ProtocolError)
    assert (error.reason, error.detail, error.status, error.reply) == ("http_host", "no host", 502, b"")


def test_an_error_that_names_no_status_is_the_clients_fault() -> None:
    assert HttpError("http_host").status == 400
