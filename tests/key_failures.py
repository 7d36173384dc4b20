"""Every way in which a key cannot be read: ``python -m tests.key_failures`` prints the table.

Each row is a test, at each place that it names: the local key manager's in tests/unit/test_keys.py,
those with a real Barbican in tests/e2e/test_keys_from_barbican.py. There stands how each situation
is produced, by its name. tests/unit/test_key_failures.py sees to it that no message of
vtpm_compute/keys.py is without a row.
"""

from typing import NamedTuple, Optional

# tests/stub_key_manager.py, or nothing at all that answers.
LOCAL = "local"
# Real ones, each with Keystone of its release.
BARBICAN_17, BARBICAN_23 = "barbican-17", "barbican-23"
REAL = (BARBICAN_17, BARBICAN_23)
EVERYWHERE = (LOCAL, *REAL)

TESTS = {
    LOCAL: "tests/unit/test_keys.py::TestFailures::test_as_the_table_says[%(situation)s]",
    BARBICAN_17: "tests/e2e/test_keys_from_barbican.py::TestFailures::test_as_the_table_says"
                 "[barbican-17-%(situation)s]",
    BARBICAN_23: "tests/e2e/test_keys_from_barbican.py::TestFailures::test_as_the_table_says"
                 "[barbican-23-%(situation)s]",
}
# What the tests set and ask.
MOST_BYTES, SECONDS = 1024, 1


class Failure(NamedTuple):
    """One row.

    :ivar situation: what is wrong, by which the tests know how to produce it.
    :ivar problem: what the user reads after "vTPM key REFERENCE", to the letter; ``{nova}`` is the
        id of nova's user.
    :ivar status: the HTTP status that the error carries; None: there was no answer of the key
        manager, or it does not matter.
    :ivar places: where it is produced.
    """

    situation: str
    problem: str
    status: Optional[int] = None
    places: tuple = (LOCAL,)

    def message(self, reference, nova=None):
        """All that the user reads."""
        return "vTPM key %s %s" % (reference, self.problem.replace("{nova}", str(nova)))

    def tests(self):
        """The ids of its tests: {place: id}."""
        return {place: TESTS[place] % {"situation": self.situation} for place in self.places}


TOKEN = "was refused: the token is not valid any more. Boot the server again"
FORBIDDEN = ("may not be read by you. Ask its owner for access (a Barbican ACL), or name your own "
             "(it takes the role member)")
NOT_FOUND = ("was not found: it does not exist, was deleted, has expired (Barbican does not tell "
             "which) or has no payload. Name another")
TOO_LARGE = "holds more than the 1024 bytes allowed (max_key_bytes). Cut it into pieces"
NOT_GRANTED = "may not be read by nova. Let its read ACL name nova's user {nova}"
ANOTHERS = ("was stored by another user, and nova-compute reads for each user only what they "
            "stored themselves. Store it again")
NO_ANSWER = "could not be read: the key manager does not answer. Try again later"
NOT_IN_TIME = "could not be read: the key manager does not answer in time. Try again later"
UP = "could not be read within 1 seconds (fetch_timeout). Try again later"
CUT_OFF = "could not be read: the key manager's answer was cut off. Try again later"
NO_TLS = ("could not be read: no trusted TLS connection to the key manager. Tell the "
          "administrator")
NO_URL = "could not be read: the key manager's endpoint is no URL. Tell the administrator"
NO_LOGIN = ("could not be read: nova-compute cannot log in to Keystone with [%s]. Tell the "
            "administrator")
NOT_COMPLETE = ("could not be read: nova-compute's credentials in [%s] are not complete. Tell the "
                "administrator")


def _answered(status, remedy="Tell the administrator"):
    return "could not be read: the key manager answered %d. %s" % (status, remedy)


def _redirect(status):
    return ("could not be read: the key manager answered %d, a redirect, which is not followed. "
            "Tell the administrator" % status)


def _malformed(how):
    return ("could not be read: the key manager's answer is malformed, %s. Tell the administrator"
            % how)


NO_HTTP = _malformed("it is no HTTP")
NO_NUMBER = _malformed("its length is no number")
NOT_THE_TYPE = _malformed("it is not of type application/octet-stream")
NO_CREATOR = _malformed("it does not say who stored it")

FAILURES = (
    # -- the token
    Failure("401", TOKEN, 401),
    Failure("a token that is none", TOKEN, 401, REAL),
    Failure("a revoked token", TOKEN, 401, REAL),
    Failure("an expired token, without a service token", TOKEN, 401, REAL),
    Failure("no user's token", "can be read by its owner only, and this operation carries no "
            "user's token. Let its owner start it", None, EVERYWHERE),

    # -- who may read
    Failure("403", FORBIDDEN, 403),
    Failure("of another project", FORBIDDEN, 403, REAL),
    Failure("of another project, an expired token with a service token", FORBIDDEN, 403, REAL),
    Failure("private to another user of the project", FORBIDDEN, 403, REAL),
    Failure("an administrator of another project", FORBIDDEN, 403, REAL),
    Failure("a user of the project without the role member", FORBIDDEN, 403, REAL),
    Failure("granted to nova alone, read by another user", FORBIDDEN, 403, REAL),

    # -- what there is to read
    Failure("404", NOT_FOUND, 404),
    Failure("unknown", NOT_FOUND, 404, REAL),
    Failure("deleted", NOT_FOUND, 404, REAL),
    Failure("expired", NOT_FOUND, 404, REAL),
    Failure("without a payload", NOT_FOUND, 404, REAL),
    Failure("406", "is not stored as bytes or text. Store it again as application/octet-stream",
            406),
    Failure("410", "is gone. Name an existing secret", 410),
    Failure("413", "is too large for the key manager. Cut it into pieces", 413),
    Failure("empty", "is empty. Store the key protector in it", 200),
    Failure("too large", TOO_LARGE, 200, EVERYWHERE),
    Failure("too large, by what is announced alone", TOO_LARGE, 200),
    Failure("a byte too many, not announced", TOO_LARGE, 200),
    Failure("endless, without a length", TOO_LARGE, 200),
    Failure("endless, in chunks", TOO_LARGE, 200),
    Failure("endless, in chunks, announced as small", TOO_LARGE, 200),

    # -- a key manager in trouble
    Failure("429", "could not be read now: the key manager has too many requests. Try again later",
            429),
    Failure("500", _answered(500), 500),
    Failure("Barbican has another master key", _answered(500), 500, REAL),
    Failure("an endless error page", _answered(500), 500),
    Failure("502", _answered(502, "Try again later"), 502),
    Failure("503", _answered(503, "Try again later"), 503),
    Failure("Keystone is down, which Barbican asks", _answered(503, "Try again later"), 503, REAL),
    Failure("504", _answered(504, "Try again later"), 504),
    Failure("nobody is there", NO_ANSWER, None, EVERYWHERE),
    Failure("a name that is none", NO_ANSWER),
    Failure("closed without a word", NO_ANSWER),
    Failure("reset without a word", NO_ANSWER),
    Failure("reset in the header", NO_ANSWER),
    Failure("reset in the body", CUT_OFF),
    Failure("cut off", CUT_OFF, 200),
    Failure("cut off in a chunk", CUT_OFF),
    Failure("a bad chunk", CUT_OFF),
    Failure("nobody accepts", NOT_IN_TIME),
    Failure("silent", NOT_IN_TIME),
    Failure("silent in the body", NOT_IN_TIME),
    Failure("stopped in its tracks", NOT_IN_TIME, None, REAL),
    Failure("a drip of the status", UP),
    Failure("a drip of the header", UP),
    Failure("a drip of the body", UP),
    Failure("a drip of chunks", UP),
    Failure("endless waiting", UP),

    # -- answers that are none
    Failure("no content", _answered(204), 204),
    Failure("a part", _answered(206), 206),
    Failure("400", _answered(400), 400),
    Failure("405", _answered(405), 405),
    Failure("a redirect to nowhere", _redirect(302), 302),
    Failure("a redirect to another path of the host", _redirect(302), 302),
    Failure("an endless redirect", _redirect(302), 302),
    *(Failure("a redirect to another host, %d" % status, _redirect(status), status)
      for status in (301, 302, 303, 307, 308)),
    Failure("too large, announced as 10^30", NO_NUMBER, 200),
    Failure("a length that is no number", NO_NUMBER, 200),
    Failure("a negative length", NO_NUMBER, 200),
    Failure("two lengths", _malformed("it cannot be understood")),
    Failure("compressed", _malformed("it is compressed"), 200),
    Failure("compressed otherwise", _malformed("it is compressed"), 200),
    Failure("compressed on its way", _malformed("its transfer encoding is unknown"), 200),
    Failure("a page", NOT_THE_TYPE, 200),
    Failure("the description of a secret", NOT_THE_TYPE, 200),
    Failure("without a type", NOT_THE_TYPE, 200),
    Failure("another protocol", NO_HTTP),
    Failure("no HTTP, but the secret", NO_HTTP),
    Failure("a status that is no number", NO_HTTP),
    Failure("a long header", NO_HTTP),
    Failure("a thousand headers", NO_HTTP),

    # -- how nova-compute reaches it
    Failure("no key manager in the catalog", "could not be read: this cloud's catalog has no key "
            "manager. Tell the administrator", None, EVERYWHERE),
    Failure("an endpoint without a scheme", NO_URL),
    Failure("an endpoint that is a host and a port", NO_URL),
    Failure("an endpoint of FTP", NO_URL),
    Failure("an endpoint with half an address", NO_URL),
    Failure("an endpoint without a host", NO_URL),
    Failure("TLS of another CA", NO_TLS),
    Failure("TLS for another name", NO_TLS),
    Failure("a CA file that is not there", NO_TLS),
    Failure("TLS where there is none", NO_TLS, None, EVERYWHERE),
    Failure("no TLS where there is some", NO_ANSWER),

    # -- nova-compute's own credentials: beside the user's, or auth=service
    Failure("[service_user] is not complete", NOT_COMPLETE % "service_user"),
    Failure("[service_user], which Keystone refuses", NO_LOGIN % "service_user", None, EVERYWHERE),
    Failure("[service_user], and Keystone is down", NO_LOGIN % "service_user"),
    Failure("no credentials", "could not be read: nova-compute has no credentials (auth_type). "
            "Tell the administrator", None, EVERYWHERE),
    Failure("[vtpm_compute] is not complete", NOT_COMPLETE % "vtpm_compute"),
    Failure("[vtpm_compute], which Keystone refuses", NO_LOGIN % "vtpm_compute", None, EVERYWHERE),
    Failure("the key manager refuses nova's token", "could not be read: the key manager refuses "
            "nova-compute's own credentials. Tell the administrator", 401, EVERYWHERE),
    Failure("not granted to nova", NOT_GRANTED, 403, EVERYWHERE),
    Failure("unknown, asked for by nova", NOT_FOUND, 404, EVERYWHERE),
    Failure("stored by another user of another project", ANOTHERS, None, EVERYWHERE),
    Failure("stored by another user of the project", ANOTHERS, None, REAL),
    Failure("stored by another user than the administrator", ANOTHERS, None, REAL),
    Failure("stored by nobody", ANOTHERS),
    Failure("a description without a creator", NO_CREATOR, 200),
    Failure("a description that is no object", NO_CREATOR, 200),
    Failure("a description that is no JSON", NO_CREATOR, 200),
    Failure("a description that is huge", _malformed("it is too long"), 200),
)


def at(*places):
    """(place, row) of all rows that are produced at these places."""
    return [(place, row) for place in places for row in FAILURES if place in row.places]


def main():
    """Print the table."""
    for row in FAILURES:
        print("%s\n    status: %s\n    message: %s\n    tests:" % (
            row.situation, row.status or "-", row.message("KEY", "NOVA")))
        for test in row.tests().values():
            print("        " + test)


if __name__ == "__main__":
    main()
