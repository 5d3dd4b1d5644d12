"""Hold rules: making, listing and ending them. What they match is asked in :mod:`shared.db.hold_match`."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from shared.db import inputs, paging
from shared.db.engine import Connection
from shared.db.holds import Action, Kind
from shared.db.jobs import create_job
from shared.db.paging import Page
from shared.db.selections import Selection
from shared.errors import Conflict, NotFound
from shared.models import Account, HoldRule, Job

RULES = 1000
"""Rules of an account at most, and of operators."""

_CURSOR = "holdrule"
_REASON_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class NewRule:
    """What a rule shall match and say; what is None does not matter, and without any condition it matches everything."""

    account_id: int | None
    """None: mail of all accounts, which only an operator may say."""
    by_operator: bool
    sender_domain: str | None = None
    """Domains as A-labels."""
    sender_address: str | None = None
    recipient_domain: str | None = None
    recipient_address: str | None = None
    reason: str = ""
    expires_at: datetime | None = None
    release_on_expiry: bool = False


async def create_rule(session: AsyncSession, new: NewRule) -> tuple[HoldRule, Job]:
    """Make a rule, and the job that holds what is queued already; from the commit on nothing that matches starts.

    Raises:
        NotFound: there is no such account.
        Conflict: there are too many rules.
    """
    if new.account_id is not None and await session.get(Account, inputs.row_id(new.account_id, "account")) is None:
        raise NotFound(f"there is no account {new.account_id}")
    await _check_room(session, new)
    values = {
        "account_id": new.account_id,
        "sender_domain": new.sender_domain,
        # The same lower() as the question uses, whatever the database takes for a capital letter.
        "sender_address": func.lower(new.sender_address) if new.sender_address is not None else None,
        "recipient_domain": new.recipient_domain,
        "recipient_address": func.lower(new.recipient_address) if new.recipient_address is not None else None,
        "reason": inputs.text(new.reason, field="reason", longest=_REASON_CHARACTERS),
        "expires_at": new.expires_at,
        "release_on_expiry": new.release_on_expiry,
        "made_by_operator": new.by_operator,
    }
    rule = (await session.scalars(insert(HoldRule).values(values).returning(HoldRule))).one()
    action = Action(Kind.HOLD, new.by_operator, rule.id)
    job = await create_job(session, action, Selection(account_id=new.account_id), account_id=new.account_id)
    return rule, job


async def _check_room(session: AsyncSession, new: NewRule) -> None:
    query = select(func.count()).select_from(HoldRule).where(col(HoldRule.removed_at).is_(None))
    query = query.where(col(HoldRule.made_by_operator).is_(new.by_operator))
    if not new.by_operator:
        query = query.where(col(HoldRule.account_id) == new.account_id)
    if (await session.scalar(query) or 0) >= RULES:
        raise Conflict(f"there are {RULES} hold rules already; remove some that are not needed")


async def get_rule(session: AsyncSession, rule_id: int, *, account_id: int | None) -> HoldRule:
    """Return a rule; to an account only one of its own.

    Raises:
        NotFound: there is none, or it is not theirs.
    """
    query = _visible(account_id).where(col(HoldRule.id) == inputs.row_id(rule_id, "hold rule"))
    row: HoldRule | None = await session.scalar(query)
    if row is None:
        raise NotFound(f"there is no hold rule {rule_id}")
    return row


async def list_rules(
    session: AsyncSession,
    *,
    account_id: int | None,
    of_account: int | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[HoldRule]:
    """Return a page of rules, the newest first: an account's own, or to an operator all, or those ``of_account``."""
    size = inputs.page_size(limit)
    query = _visible(account_id)
    if of_account is not None:
        query = query.where(col(HoldRule.account_id) == inputs.row_id(of_account, "account"))
    if cursor:
        query = query.where(col(HoldRule.id) < paging.decode(_CURSOR, cursor)[0])
    rows = await session.scalars(query.order_by(col(HoldRule.id).desc()).limit(size + 1))
    return paging.page(_CURSOR, [(row.id, row) for row in rows], size)


async def remove_rule(session: AsyncSession, rule_id: int, *, account_id: int | None, release: bool) -> Job | None:
    """End a rule; with ``release`` what it holds is released by the job that is returned, otherwise it stays held.

    Raises:
        NotFound: there is none, or it is not theirs.
    """
    rule = await get_rule(session, rule_id, account_id=account_id)
    ended = {"removed_at": func.now(), "release_on_expiry": release}
    ends = func.least(func.coalesce(HoldRule.expires_at, func.now()), func.now())
    # An end that is asked for twice at once is made once: the second finds nothing to update.
    statement = update(HoldRule).where(col(HoldRule.id) == rule.id, col(HoldRule.removed_at).is_(None))
    done = await session.scalar(statement.values(**ended, expires_at=ends).returning(col(HoldRule.id)))
    if done is None:
        raise NotFound(f"there is no hold rule {rule_id}")
    return await _release(session, rule) if release else None


async def release_ended(session: AsyncSession, *, limit: int = 100) -> int:
    """Make jobs that release what rules held that have ended and shall release it; return how many.

    It also finds mail that was accepted while a rule was ending, by a transaction that did not know yet.
    """
    ids = (await session.scalars(text(_ENDED), {"limit": limit})).all()
    rules = await session.scalars(select(HoldRule).where(col(HoldRule.id).in_(ids)).order_by(col(HoldRule.id)))
    made = 0
    for rule in rules.all():
        await _release(session, rule)
        made += 1
    return made


async def _release(session: AsyncSession, rule: HoldRule) -> Job:
    action = Action(Kind.RELEASE, rule.made_by_operator, rule.id)
    wanted = Selection(account_id=rule.account_id, rule_id=rule.id)
    return await create_job(session, action, wanted, account_id=rule.account_id)


async def forget_ended(connection: Connection, *, limit: int = 500) -> int:
    """Delete some rules that ended a day ago and hold nothing any more; return how many."""
    return int((await connection.execute(_FORGET, limit)).rpartition(" ")[2])


def _visible(account_id: int | None) -> SelectOfScalar[HoldRule]:
    query = select(HoldRule).where(col(HoldRule.removed_at).is_(None))
    if account_id is None:
        return query
    return query.where(col(HoldRule.account_id) == account_id, col(HoldRule.made_by_operator).is_(False))


# Locked, so that of several processes one makes the job.
_ENDED = """
SELECT id FROM hold_rule h
WHERE expires_at <= now() AND release_on_expiry
    AND EXISTS (SELECT FROM delivery_queue q WHERE q.hold_rule_id = h.id)
    AND NOT EXISTS (SELECT FROM job WHERE job.finished_at IS NULL AND job.hold_rule_id = h.id AND job.kind = 'release')
ORDER BY id LIMIT :limit FOR UPDATE OF h SKIP LOCKED
"""
_FORGET = """
DELETE FROM hold_rule WHERE id = ANY (ARRAY(
    SELECT id FROM hold_rule h WHERE expires_at < now() - interval '1 day'
        AND NOT EXISTS (SELECT FROM delivery_queue q WHERE q.hold_rule_id = h.id)
    ORDER BY expires_at LIMIT $1))
"""
