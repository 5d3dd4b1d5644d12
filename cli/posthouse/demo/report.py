"""The report of a remote mail server: what it took, it could not deliver after all (RFC 3464). Written with the standard library."""

import smtplib
from email.message import Message
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import format_datetime, make_msgid

from posthouse.demo.remote import HOSTNAME, Mail
from shared.clock import Clock, utc_now

DIAGNOSTIC = "550 5.1.1 the mailbox was closed"
_SECONDS = 15.0


def write_report(mail: Mail, clock: Clock = utc_now) -> bytes:
    """Return the message that tells the sender of a mail that its recipient does not exist, with CRLF line ends."""
    now = format_datetime(clock())
    report = MIMEMultipart("report", report_type="delivery-status")  # RFC 6522 3
    report["From"] = f"Mail Delivery System <MAILER-DAEMON@{HOSTNAME}>"
    report["To"] = mail.mail_from
    report["Subject"] = "Undelivered Mail Returned to Sender"
    report["Date"] = now
    report["Message-ID"] = make_msgid(domain=HOSTNAME)
    report["Auto-Submitted"] = "auto-replied"  # RFC 3834 3.1.7
    report.attach(MIMEText(f"Your mail to {mail.recipient} could not be delivered: {DIAGNOSTIC}.\r\n"))
    of_message, of_recipient = Message(), Message()
    of_message["Reporting-MTA"] = f"dns; {HOSTNAME}"  # RFC 3464 2.2
    of_message["Arrival-Date"] = now
    of_recipient["Final-Recipient"] = f"rfc822; {mail.recipient}"  # RFC 3464 2.3
    of_recipient["Action"] = "failed"
    of_recipient["Status"] = "5.1.1"
    of_recipient["Diagnostic-Code"] = f"smtp; {DIAGNOSTIC}"
    status = MIMEBase("message", "delivery-status")
    status.set_payload([of_message, of_recipient])
    report.attach(status)
    header = mail.content.partition(b"\r\n\r\n")[0].decode("ascii", "replace")
    report.attach(MIMEText(header + "\r\n", "rfc822-headers", "us-ascii"))  # RFC 6522 4
    return report.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def return_report(smtp: str, mail: Mail) -> str:
    """Send the report of a mail to its return path, over SMTP with an empty sender (RFC 5321 4.5.5); return the reply.

    Args:
        smtp: ``host:port`` of the sender's own server.
        mail: what could not be delivered.

    Raises:
        OSError: it could not be sent, for example because it was refused.
    """
    host, _, port = smtp.rpartition(":")
    with smtplib.SMTP(host, int(port), local_hostname=HOSTNAME, timeout=_SECONDS) as client:
        client.ehlo_or_helo_if_needed()
        for code, text in (client.mail(""), client.rcpt(mail.mail_from), client.data(write_report(mail))):
            if code != 250:
                raise smtplib.SMTPResponseException(code, text)
    return f"{code} {text.decode('ascii', 'replace')}"
