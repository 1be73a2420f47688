"""Why a reply was not an acceptance, and how a person mends it: the words that reports group by, and a sentence for each."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a reply was not an acceptance, in one word. A closed list, so that reports can total it."""

    BAD_REQUEST = "bad_request"  # 400, 422
    UNAUTHORISED = "unauthorised"  # 401
    PAYMENT_REQUIRED = "payment_required"  # 402
    FORBIDDEN = "forbidden"  # 403
    ENDPOINT_MISSING = "endpoint_missing"  # 404, 405, 410
    IMAGE_TOO_LARGE = "image_too_large"  # 413
    REFUSED = "refused"  # 2xx whose body says "status": false
    RATE_LIMITED = "rate_limited"  # 429
    REQUEST_TIMEOUT = "request_timeout"  # 408
    CONFLICT = "conflict"  # 409
    REDIRECTED = "redirected"  # 301, 302, 303, 307, 308
    UNSUPPORTED = "unsupported"  # 501, 505
    SERVER_ERROR = "server_error"  # any other 5xx
    NO_PROOF = "no_proof"  # 2xx, readable, but without the provider's proof of acceptance
    BAD_REPLY = "bad_reply"  # 2xx whose body is cut, not JSON, or not an object
    UNEXPECTED_STATUS = "unexpected_status"  # any other status


_LOOK_FIRST = "look the message up at the provider before you retry it as unknown."
MEND: dict[str, str] = {  # one sentence a reason: how a person mends it
    Reason.BAD_REQUEST: "Correct the number, image or caption as the provider's words say, then retry the rejected rows.",
    Reason.UNAUTHORISED: "The provider does not know the token: put a valid one into the environment, then send again.",
    Reason.PAYMENT_REQUIRED: "The account is out of credit: top it up at the provider, then send again.",
    Reason.FORBIDDEN: "The account may not do this: settle it with the provider (scope of the key, a block), then send again.",
    Reason.ENDPOINT_MISSING: "The provider has nothing at this address: correct base_url, then send again.",
    Reason.IMAGE_TOO_LARGE: "Put a smaller image at the address (at most 5 MB), then retry the rejected rows.",
    Reason.REFUSED: "The provider refused the message: mend what its words name, then retry the rejected rows.",
    Reason.RATE_LIMITED: "The provider asked to slow down: lower the rate in the campaign file, then send again.",
    Reason.REQUEST_TIMEOUT: f"The server gave up waiting, perhaps after taking the message: {_LOOK_FIRST}",
    Reason.CONFLICT: f"The provider may have the message already: {_LOOK_FIRST}",
    Reason.REDIRECTED: f"The provider has moved: put its new address into base_url; for unknown rows, {_LOOK_FIRST}",
    Reason.UNSUPPORTED: "The server at base_url does not offer this service: correct base_url, then send again.",
    Reason.SERVER_ERROR: f"The provider failed, perhaps after taking the message: {_LOOK_FIRST}",
    Reason.NO_PROOF: f"The provider did not say that it took the message: {_LOOK_FIRST}",
    Reason.BAD_REPLY: f"The answer was cut or is not the provider's (a proxy's page?): {_LOOK_FIRST}",
    Reason.UNEXPECTED_STATUS: f"The answer has a meaning that nobody documented: {_LOOK_FIRST}",
}
