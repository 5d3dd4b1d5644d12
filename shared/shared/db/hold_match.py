"""Which hold rule a delivery is held by: one question, asked at acceptance, at the start gate and by jobs.

A rule holds what fulfils all of its conditions; one without any holds everything of its account, or of all. It is found by the
most telling of its conditions (``match_key``), so that asking takes six look-ups however many rules there are. A delivery that was
released is not held by rules that were there before; an operator's rule yields only to an operator.
"""

_HOLDING_RULE = """
SELECT h.id, h.made_by_operator FROM hold_rule h
WHERE h.match_key = ANY (ARRAY['recipient:' || lower({row}.recipient), 'sender:' || lower({row}.sender), 'to:' || {row}.recipient_domain,
        'from:' || {row}.sender_domain, 'account:' || {row}.account_id::text, '*'])
    AND h.removed_at IS NULL AND (h.expires_at IS NULL OR h.expires_at > now())
    AND (h.account_id IS NULL OR h.account_id = {row}.account_id)
    AND (h.sender_domain IS NULL OR h.sender_domain = {row}.sender_domain)
    AND (h.sender_address IS NULL OR h.sender_address = lower({row}.sender))
    AND (h.recipient_domain IS NULL OR h.recipient_domain = {row}.recipient_domain)
    AND (h.recipient_address IS NULL OR h.recipient_address = lower({row}.recipient))
    AND h.created_at > coalesce(CASE WHEN h.made_by_operator THEN {released}.operator_released_at ELSE {released}.released_at END, '-infinity')
ORDER BY h.made_by_operator DESC, h.id LIMIT 1
"""
"""``row`` has account_id, sender, sender_domain, recipient, recipient_domain; ``released`` the two times of a queue row."""


def holding_rule(row: str, released: str) -> str:
    """Return the question in terms of two relations of the statement around it."""
    return _HOLDING_RULE.format(row=row, released=released)
