"""What the stand-in provider says of itself at /_sandbox/."""

from __future__ import annotations

from runner.sandbox_scenario import MAGIC


def help_text(wapim: str, zixflow: str) -> str:
    """The addresses it answers at, below the two base paths, and the magic numbers."""
    magic = "".join(f"  {digits}  {action.says}\n" for digits, action in MAGIC.items())
    return f"""A stand-in for the providers Wapim and Zixflow. Nothing sent here reaches anybody.

Wapim    POST {wapim}/message/image   GET, DELETE {wapim}/queue   GET {wapim}/status
         POST {wapim}/messages   POST {wapim}/lastmessages
Zixflow  POST {zixflow}/whatsapp/message/send   GET {zixflow}/report/whatsapp/MESSAGE_ID

GET    /_sandbox/messages?since=N&limit=N   what was received, as JSON
DELETE /_sandbox/messages                   forget it
GET    /_sandbox/stats?window=SECONDS       counts, phones requested twice, the worst sliding window

The last four digits of the phone number choose what happens:
{magic}  any other  success
"""
