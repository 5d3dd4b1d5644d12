"""The tables, one file each. The migrations make them; a test holds these classes against the migrated schema.

Control plane, written by people, with foreign keys::

    retry_schedule -- account           when mail is tried again
    traffic_rule                        how much sites are sent at once
    account --+-- credential            API keys and logins (operators have no account)
              +-- domain --+-- dkim_key
              |            `-- address
              +-- suppression           who is not sent to; recipient_state counts failures in a row
              +-- hold_rule             what waits
              +-- job                   holds, releases and cancels of many deliveries, in steps
              +-- route                 which mail takes which transport; of an account, of a domain, or of all
              `-- endpoint -- lane      where webhooks go

    transport                           ways out, by name; routing counts the changes of routes and transports

Records, partitioned by id, without foreign keys, kept until their time is over::

    message --+-- message_body          the bytes, in chunks
              +-- message_tag           for lists by tag
              `-- delivery -- attempt   one recipient each; one row per SMTP try
    event                               facts about deliveries and inbound messages
    call -- call_attempt                one event for one endpoint; one row per HTTP try
    inbound_message --+-- inbound_body
                      `-- report        what a received report says of one delivery

Live rows, same id as their record, deleted when it is settled::

    delivery_queue, call_queue, inbound_queue, event_pending, dsn_pending, parked_report

What keeps submissions unique and within their limits, small and unpartitioned::

    idempotency                         the first answer to a key, for a day
    client_from_id                      tokens that clients chose
    account_usage, known_recipient      what an account with limits has spent, and whom it has written to

What only operators are told::

    operator_event                      counted by kind and subject

Who is served, decided on summary rows::

    site --+-- lane                     a next hop, and one account's mail for it
           `-- site_slot                connections as leases, held by worker
    domain_provider                     behind whose mail hosts a recipient domain is
    delivery_wake, call_wake            notes that a lane has something to do
"""

from sqlmodel import SQLModel

from shared.models.account import Account
from shared.models.account_usage import AccountUsage
from shared.models.address import Address
from shared.models.attempt import Attempt
from shared.models.call import Call
from shared.models.call_attempt import CallAttempt
from shared.models.call_queue import CallQueue
from shared.models.call_wake import CallWake
from shared.models.client_from_id import ClientFromId
from shared.models.credential import Credential
from shared.models.delivery import Delivery
from shared.models.delivery_queue import DeliveryQueue
from shared.models.delivery_wake import DeliveryWake
from shared.models.dkim_key import DkimKey
from shared.models.domain import Domain
from shared.models.domain_provider import DomainProvider
from shared.models.dsn_pending import DsnPending
from shared.models.endpoint import Endpoint
from shared.models.event import Event
from shared.models.event_pending import EventPending
from shared.models.hold_rule import HoldRule
from shared.models.idempotency import Idempotency
from shared.models.inbound_body import InboundBody
from shared.models.inbound_message import InboundMessage
from shared.models.inbound_queue import InboundQueue
from shared.models.job import Job
from shared.models.known_recipient import KnownRecipient
from shared.models.lane import Lane
from shared.models.message import Message
from shared.models.message_body import MessageBody
from shared.models.message_tag import MessageTag
from shared.models.operator_event import OperatorEvent
from shared.models.parked_report import ParkedReport
from shared.models.recipient_state import RecipientState
from shared.models.report import Report
from shared.models.retry_schedule import RetrySchedule
from shared.models.route import Route
from shared.models.routing import Routing
from shared.models.site import Site
from shared.models.site_slot import SiteSlot
from shared.models.suppression import Suppression
from shared.models.traffic_rule import TrafficRule
from shared.models.transport import Transport
from shared.models.worker import Worker

metadata = SQLModel.metadata

__all__ = [
    "Account",
    "AccountUsage",
    "Address",
    "Attempt",
    "Call",
    "CallAttempt",
    "CallQueue",
    "CallWake",
    "ClientFromId",
    "Credential",
    "Delivery",
    "DeliveryQueue",
    "DeliveryWake",
    "DkimKey",
    "Domain",
    "DomainProvider",
    "DsnPending",
    "Endpoint",
    "Event",
    "EventPending",
    "HoldRule",
    "Idempotency",
    "InboundBody",
    "InboundMessage",
    "InboundQueue",
    "Job",
    "KnownRecipient",
    "Lane",
    "Message",
    "MessageBody",
    "MessageTag",
    "OperatorEvent",
    "ParkedReport",
    "RecipientState",
    "Report",
    "RetrySchedule",
    "Route",
    "Routing",
    "Site",
    "SiteSlot",
    "Suppression",
    "TrafficRule",
    "Transport",
    "Worker",
    "metadata",
]
