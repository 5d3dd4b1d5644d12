"""Where the deliveries of a submission come back to: MAIL FROM, and the from_id in it."""

from dataclasses import dataclass

from api.prepare import Prepared
from api.submission import Submission
from shared.db.domains import SenderDomain
from shared.errors import FromIdTaken, ValidationFailed
from shared.mail.from_id import FromIds, chosen_token, return_path


@dataclass(frozen=True, slots=True)
class ReturnPath:
    """Of one submission."""

    message: Prepared
    field: str
    """Where in the input its address stands."""
    separator: str
    bounce_domain: str | None
    from_ids: FromIds | None
    """Makes the from_id of each delivery; None: there are none, but perhaps a chosen one."""
    chosen: str | None
    """The from_id that the client wrote into MAIL FROM, for its one delivery."""

    @classmethod
    def of(cls, submission: Submission, message: Prepared, domain: SenderDomain, from_ids: FromIds) -> "ReturnPath":
        """Read what a submission asks for.

        Raises:
            FromIdTaken: the client chose a from_id that was made for another delivery.
            ValidationFailed: it chose one that cannot be used, or one for several recipients (fact ``one_recipient``).
        """
        given, mail_from = submission.mail_from, message.mail_from
        # A domain that was left without a separator has none that could be in the way of ours.
        separator = domain.separators[0] if domain.separators else "+"
        chosen = None
        makes = submission.caller.uses_from_ids and mail_from is not None
        if makes and given is not None and mail_from is not None:
            chosen = chosen_token(mail_from.local, separator)
            makes = chosen is None
        if chosen:
            _check(chosen, message, from_ids)
        return cls(
            message=message,
            field=given.field if given is not None else message.sender_field,
            separator=separator,
            bounce_domain=domain.bounce_domain,
            # At a bounce domain, which nobody has to prove, a token that could be guessed would be everybody's: there it is ours.
            from_ids=from_ids if makes or (chosen and domain.bounce_domain is not None) else None,
            chosen=chosen or None,
        )

    def named(self, delivery_id: int) -> tuple[str, str | None]:
        """Return MAIL FROM of a delivery, and its from_id.

        Raises:
            ValidationFailed: with a from_id the address would be too long.
        """
        mail_from = self.message.mail_from
        if mail_from is None:
            return "", None
        if self.from_ids is None:
            return mail_from.text, self.chosen
        token = self.from_ids.make(delivery_id)
        try:
            path = return_path(mail_from, token, separator=self.separator, bounce_domain=self.bounce_domain)
        except ValidationFailed as error:
            raise ValidationFailed(error.message, field=self.field) from None
        return path, self.chosen or token


def _check(chosen: str, message: Prepared, from_ids: FromIds) -> None:
    if len(message.recipients) > 1:
        raise ValidationFailed(
            "a from_id of your own names one delivery: hand the message in once for each recipient, or let from_ids be made",
            field="mail_from",
            facts={"one_recipient": True},
        )
    if from_ids.read(chosen) is not None:  # reports to it would go to the delivery that it was made for
        raise FromIdTaken(field="mail_from")
