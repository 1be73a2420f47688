"""How a person mends each kind of failure, one sentence a reason. Used by the Failures sheet and the terminal."""

from __future__ import annotations

from runner.model import SkipReason
from runner.refusals import MEND as PROVIDER_MEND

_SKIPPED = {
    SkipReason.INVALID_PHONE: "Correct the number in the audience: with its country code, in a column formatted as text.",
    SkipReason.WRONG_COUNTRY: "Correct the number, or add its country to allowed_countries.",
    SkipReason.DUPLICATE: "Nothing to do: another row with the same number gets the message.",
    SkipReason.SUPPRESSED: "Nothing to do: this person must not be written to.",
    SkipReason.FILTERED: "Nothing to do: the campaign's where leaves this row out.",
    SkipReason.RENDER_ERROR: "Fill the column named here, or give it a default in the template.",
    SkipReason.CAPTION_TOO_LONG: "Shorten the template or the value that makes it long.",
    SkipReason.MEDIA_UNUSABLE: "Replace the image with a public JPEG or PNG of at most 5 MB.",
    SkipReason.EXPIRED: "Move or remove the deadline and send again.",
    SkipReason.CANCELLED: "Send the campaign again if it was cancelled by mistake.",
}
_SENDING = {
    "dns": "Check the provider's address (base_url) and this machine's network.",
    "unreachable": "Check this machine's network and the provider's address; then: campaign retry --not-sent.",
    "connect_timeout": "Check this machine's network; then: campaign retry --not-sent.",
    "not_connected": "Check this machine's network; then: campaign retry --not-sent.",
    "tls": "Check the provider's address, and whether something on the network intercepts connections.",
    "certificate": "Check the provider's address and this machine's clock; do not send through an untrusted connection.",
    "bad_address": "Correct base_url in the provider block.",
    "held_back": "Send again: the run goes on where it stopped.",
    "withdrawn": "Nothing to do: the row was taken out of the audience before it was sent.",
    "interrupted": "It may have been sent. Ask the recipient or the provider before sending again.",
    "connection_lost": "It may have been sent. Ask the recipient or the provider before sending again.",
    "reply_cut": "It may have been sent. Ask the recipient or the provider before sending again.",
    "bad_reply": "It may have been sent. Ask the recipient or the provider before sending again.",
    "reply_timeout": "It may have been sent. Ask the provider, and raise timeout if it is often this slow.",
}


def mend(reason: str) -> str:
    """One sentence on what to do; general words for a reason without one of its own."""
    known: dict[str, str] = {**{key.value: text for key, text in _SKIPPED.items()}, **PROVIDER_MEND, **_SENDING}
    return known.get(reason, "Look at the provider's own words beside it.")
