"""Takes personal data out of texts before anything is written.

The built-in filter knows forms (addresses, numbers with check digits), not names: for those plug in
one of your own, such as Microsoft's Presidio.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from rlaif.util.user_functions import load_function

Filter = Callable[[str], str | None]
"""Gives the text without personal data, or None for a row that must not be kept."""

_EMAIL = re.compile(r"(?<![\w.+'-])[\w.+'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_URL_SECRET = re.compile(r"(?i)\b(https?://)[^\s/@:]{1,100}:[^\s/@]{1,100}@")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_CARD = re.compile(r"(?<![\d-])(?:\d[ -]?){12,30}\d")
_IP = re.compile(
    r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])"
)
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f:]{4,39}(?![\w:])")
_SSN = re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_PHONE = re.compile(
    r"(?<![\w.])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){5,12}"
    r"|\(\d{3}\)[ .-]?\d{3}[ .-]\d{4}|\d{3}[ .-]\d{3}[ .-]\d{4})(?![\w-])"
)


def redact(text: str) -> str:
    """Replace e-mail and IP addresses, phone numbers (international and US), card, bank and social
    security numbers, and passwords in addresses by what they were, in brackets.
    """
    text = _URL_SECRET.sub(r"\1[password]@", text)
    text = _EMAIL.sub("[email]", text)
    text = _IBAN.sub(lambda m: _longest(m[0], _is_iban, "[bank account]"), text)
    text = _CARD.sub(lambda m: _longest(m[0], _is_card, "[card]"), text)
    text = _SSN.sub("[social security number]", text)
    text = _IP.sub("[ip address]", text)
    text = _IPV6.sub(lambda m: "[ip address]" if _is_ip(m[0]) else m[0], text)
    return _PHONE.sub("[phone]", text)


def _longest(text: str, fits: Callable[[str], bool], name: str) -> str:
    """`text` with its longest beginning that fits replaced: an expiry date may follow a card."""
    for end in range(len(text), 12, -1):
        if text[end - 1].isalnum() and not text[end : end + 1].isdigit() and fits(text[:end]):
            return name + text[end:]
    return text


def _is_card(text: str) -> bool:
    """Whether the check digit fits (Luhn, ISO/IEC 7812)."""
    digits = [int(c) for c in text if c.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [sum(divmod(2 * d, 10)) if i % 2 else d for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_iban(text: str) -> bool:
    """Whether the check digits fit (ISO 13616, mod 97)."""
    plain = text.replace(" ", "")
    moved = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


def _is_ip(text: str) -> bool:
    try:
        return text.count(":") > 2 and ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def plugged(name: str) -> bool:
    """Whether a filter is the user's own."""
    return name not in ("builtin", "none")


def load_filter(name: str) -> Filter:
    """`builtin`, `none`, or `package.module:function`.

    Raises:
        RlaifError: there is no such function.
    """
    if name == "builtin":
        return redact
    if name == "none":
        return lambda text: text
    return load_function(name, "filter")
