"""``/v1/jobs``: holds, releases and cancels of many deliveries."""

from fastapi import APIRouter

from api.context import InContext
from api.routes import answers
from api.routes.guard import AnyAuth, GuardedRoute
from api.routes.parameters import Id, InPages
from api.schemas.jobs import Job, JobPage
from shared.db import jobs

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=GuardedRoute)


@router.get("", operation_id="jobs_list", summary="List jobs", responses=answers.LIST)
async def list_(context: InContext, caller: AnyAuth, query: InPages) -> JobPage:
    """Return jobs of the last days, the newest first: those an account made, or all to an operator."""
    async with context.look() as session:
        page = await jobs.list_jobs(
            session, account_id=caller.account_id, stream=caller.stream, cursor=query.cursor, limit=query.limit
        )
    return JobPage(data=[Job.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.get("/{job}", operation_id="jobs_get", summary="Get a job", responses=answers.READ)
async def get(job: Id, context: InContext, caller: AnyAuth) -> Job:
    """Return a job as far as it has come."""
    async with context.look() as session:
        return Job.of(await jobs.get_job(session, int(job), account_id=caller.account_id, stream=caller.stream))
